"""GET /v1/explain: finds the client and the destination by what the user called them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

import msgspec

from appswitch.agent.dns_names import NameTable, normal_name
from appswitch.agent.explain import explain_dict, explain_lines
from appswitch.agent.hello import parse_labels
from appswitch.agent.requests import ExplainQuery
from appswitch.agent.resource_origin import OriginView
from appswitch.agent.resources import Explanation
from appswitch.errors import InvalidInput, NotFound
from appswitch.interceptor.decision import NOTHING_FAILED, Ages, Verdict, decide
from appswitch.model import App, Class, Destination, Snapshot


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision for a query."""

    verdict: Verdict
    client: App | Class
    destination: Destination
    istio: bool
    """It is about a service of Istio's."""


def decided(snapshot: Snapshot, query: ExplainQuery, failed: Ages = NOTHING_FAILED) -> Decided:
    """Find who and where to, and decide.  Raises NotFound, InvalidInput."""
    client = find_client(snapshot, query)
    destination = find_destination(snapshot, query)
    verdict = decide(snapshot, client, destination, failed)
    istio = any(
        vservice.origin == "istio"
        and destination.address in vservice.addresses
        and any(pair.port == destination.port for pair in vservice.ports)
        for vservice in snapshot.vservices
    )
    return Decided(verdict, client, destination, istio)


def explanation(found: Decided, origin: OriginView | None = None, unknown: str = "") -> Explanation:
    """The decision with its reasons, and where it comes from; `unknown`: why that cannot be told."""
    plain = explain_dict(found.verdict, found.client, found.destination, origin)
    lines = explain_lines(found.verdict, found.client, found.destination, origin)
    if unknown:
        lines.append(f"origin: unknown ({unknown})")
    made = msgspec.convert(plain | {"lines": lines}, Explanation)
    return msgspec.structs.replace(made, origin=origin, origin_unknown=unknown)


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
