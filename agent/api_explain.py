"""GET /v1/explain: finds the client and the destination by what the user called them."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

from appswitch.agent.dns_names import NameTable, normal_name
from appswitch.agent.hello import parse_labels
from appswitch.agent.requests import ExplainQuery
from appswitch.agent.resources import CandidateView, Explanation
from appswitch.errors import InvalidInput, NotFound
from appswitch.interceptor.decision import Candidate, Kind, decide, error_name
from appswitch.model import App, Class, Destination, Snapshot


def explanation(snapshot: Snapshot, query: ExplainQuery) -> Explanation:
    """The decision for a query, with its reasons.  Raises NotFound, InvalidInput."""
    client = find_client(snapshot, query)
    destination = find_destination(snapshot, query)
    verdict = decide(snapshot, client, destination)
    return Explanation(
        verdict=verdict.kind.value,
        error=error_name(verdict.error) if verdict.kind is Kind.REFUSE else "",
        rule=verdict.rule.value,
        service=verdict.service,
        policy=verdict.policy.value if verdict.kind is Kind.BALANCE else "",
        why=verdict.why,
        candidates=[_candidate(candidate) for candidate in verdict.candidates],
        lines=[verdict.why],
    )


def _candidate(candidate: Candidate) -> CandidateView:
    return CandidateView(
        appid=f"{candidate.app:08x}" if candidate.app else "",
        address=f"{candidate.address}:{candidate.port}",
        weight=candidate.weight,
        eligible=candidate.eligible,
        live=candidate.live,
    )


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
