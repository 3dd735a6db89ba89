"""GET /v1/explain: finds the client and the destination by what the user called them."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

import msgspec

from appswitch.agent.dns_names import NameTable, normal_name
from appswitch.agent.explain import explain_dict, explain_lines
from appswitch.agent.hello import parse_labels
from appswitch.agent.requests import ExplainQuery
from appswitch.agent.resources import Explanation
from appswitch.errors import InvalidInput, NotFound
from appswitch.interceptor.decision import NOTHING_FAILED, Ages, decide
from appswitch.model import App, Class, Destination, Snapshot


def explanation(snapshot: Snapshot, query: ExplainQuery, failed: Ages = NOTHING_FAILED) -> Explanation:
    """The decision for a query, with its reasons.  Raises NotFound, InvalidInput."""
    client = find_client(snapshot, query)
    destination = find_destination(snapshot, query)
    verdict = decide(snapshot, client, destination, failed)
    plain = explain_dict(verdict, client, destination)
    return msgspec.convert(plain | {"lines": explain_lines(verdict, client, destination)}, Explanation)


def find_client(snapshot: Snapshot, query: ExplainQuery) -> App | Class:
    """The app of `from` (AppId, else name), or a class with the labels.

    Raises NotFound, or InvalidInput where several apps of unlike labels have the name.
    """
    if not query.app:
        return Class(labels=parse_labels(query.labels or ""))
    wanted = query.app.lower()
    found = [app for app in snapshot.apps if app.id_text == wanted]
    found = found or [app for app in snapshot.apps if app.name == wanted]
    if not found:
        raise NotFound(f"there is no app {query.app!r}")
    if len({app.app_class for app in found}) > 1:
        ids = ", ".join(app.id_text for app in found[:8])
        raise InvalidInput(
            f"from: {len(found)} apps of different labels are named {query.app!r}: choose of {ids}"
        )
    return found[0]


def find_destination(snapshot: Snapshot, query: ExplainQuery) -> Destination:
    """An IP as it is; a name as the built-in DNS has it.  Raises NotFound, InvalidInput."""
    try:
        return Destination(IPv4Address(query.host), query.port)
    except AddressValueError:
        pass
    found = NameTable.build(snapshot).addresses(normal_name(query.host))
    if not found:
        raise NotFound(f"no app, vservice or Istio name is called {query.host!r}")
    return Destination(found[0], query.port)
