"""C32 to C38: the incremental dialogue."""

from __future__ import annotations

from appswitch.xds.conformance.checks import ack, asks, lives, nack, reopened, settled, still
from appswitch.xds.conformance.meshes import A1, A2, B1, ONE, OTHER, TWO, VIP, broken
from appswitch.xds.conformance.script import (
    Case,
    End,
    Fault,
    Hold,
    Push,
    See,
    Start,
    delta,
    keeps,
    push,
    says,
)
from appswitch.xds.conformance.transcript import Request, Transcript
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, LDS

BEGIN = (Start(), settled(CDS, EDS, LDS))


def _first_wildcard(transcript: Transcript) -> str:
    for url in (CDS, LDS):
        requests = transcript.requests(url, 0)
        if not requests:
            return f"a request for {url}"
        first = requests[0]
        if first.names not in ((), ("*",)):
            raise Fault(f"the first request of {url} subscribes to {list(first.names)}, not to all")
        if first.versions or first.nonce:
            raise Fault(
                f"the first request of {url} has initial_resource_versions {dict(first.versions)}, "
                f"nonce {first.nonce!r}"
            )
    return ""


def _since_first(transcript: Transcript, stream: int) -> list[Request]:
    return transcript.requests(EDS, stream)[1:]


def _only_the_difference(transcript: Transcript) -> str:
    """`b` is subscribed to, in one request, alone."""
    changes = [item for item in _since_first(transcript, 0) if item.names or item.unsubscribe]
    if not changes:
        return "a request that subscribes to b"
    for change in changes:
        if change.names != ("b",) or change.unsubscribe:
            raise Fault(
                f"b came, and the change subscribes to {list(change.names)} "
                f"and unsubscribes from {list(change.unsubscribe)}"
            )
        nonces = {response.nonce for response in transcript.responses(EDS, 0)}
        if change.nonce and change.nonce not in nonces:
            raise Fault(f"the change has nonce {change.nonce!r}, which answers nothing")
        if change.versions:
            raise Fault("the change has initial_resource_versions: they are for the first request alone")
    return ""


def _no_combined(transcript: Transcript) -> str:
    """A nonce that was answered already makes the server take the change for an old answer."""
    for change in _since_first(transcript, 0):
        earlier = [item.nonce for item in transcript.requests(EDS, 0) if item.nonce and item.at < change.at]
        if change.names and change.nonce in earlier:
            raise Fault(f"the change repeats nonce {change.nonce!r}, which was answered before")
    return ""


def _subscribed_again(transcript: Transcript) -> str:
    again = [item for item in _since_first(transcript, 0) if "a" in item.names]
    return "" if again else "a request that subscribes to a again"


def _whole_again(transcript: Transcript) -> str:
    """All names, and the versions of what was accepted."""
    for url in (CDS, EDS):
        requests = transcript.requests(url, 1)
        if not requests:
            return f"a request for {url} on the new stream"
        first = requests[0]
        if first.nonce:
            raise Fault(f"the first request of {url} has nonce {first.nonce!r} of another stream")
        names, wanted = _EXPECTED[url]
        if first.names not in names:
            raise Fault(f"{url}: it subscribes to {list(first.names)}, not to {list(names[0])}")
        if dict(first.versions) != wanted:
            raise Fault(f"{url}: initial_resource_versions are {dict(first.versions)}, in force is {wanted}")
    return ""


_EXPECTED = {
    CDS: (((), ("*",)), {"a": "1", "b": "1"}),
    EDS: ((("a", "b"),), {"a": "2", "b": "1"}),
}
"""Names, and versions: `_whole_again`."""

CASES = (
    Case(
        "C32",
        "delta: the first request asks for everything and has nothing",
        (delta(ONE, Start(), See("the first requests", _first_wildcard)),),
        source="S",
    ),
    Case(
        "C33",
        "delta: add, update, remove; the unlisted stays",
        (
            delta(
                ONE,
                BEGIN,
                Push(EDS, "1", (assignment("b", B1),), later=True),
                push(CDS, "2", cluster("b")),
                ack(CDS),
                asks(EDS, "a", "b"),
                push(EDS, "3", assignment("a", A2)),
                ack(EDS),
                says(VIP, A2),
                Push(CDS, "4", removed=("b",)),
                ack(CDS),
                asks(EDS, "a"),
                keeps(VIP, A2),
                lives(),
            ),
        ),
        source="S, E, I",
    ),
    Case(
        "C34",
        "delta: what is removed is unknown",
        (
            delta(
                ONE,
                BEGIN,
                Push(CDS, "2", removed=("nobody",)),
                ack(CDS),
                Push(EDS, "2", removed=("nobody",)),
                ack(EDS),
                keeps(VIP, A1),
                lives(),
            ),
        ),
        source="S",
    ),
    Case(
        "C35",
        "delta: a change of subscription says the difference, without an old nonce",
        (
            delta(
                ONE,
                BEGIN,
                Hold((EDS,)),
                push(CDS, "2", cluster("b")),
                See("the difference", _only_the_difference),
                still("nothing more", _only_the_difference),
                See("no old nonce", _no_combined),
            ),
        ),
        source="S, I",
    ),
    Case(
        "C36",
        "delta: unsubscribed and subscribed again at once",
        (
            delta(
                TWO,
                BEGIN,
                Push(CDS, "2", removed=("a",)),
                push(CDS, "3", cluster("a")),
                ack(CDS),
                See("subscribed again", _subscribed_again),
                asks(EDS, "a", "b"),
                says(VIP, A1),
            ),
        ),
        source="E",
    ),
    Case(
        "C37",
        "delta: a new stream says all names, and the versions in force",
        (
            delta(
                TWO,
                BEGIN,
                push(EDS, "2", assignment("a", A2)),
                ack(EDS),
                push(EDS, "3", broken(assignment("b", A1, A2))),
                nack(EDS, ""),
                Push(EDS, "1", (assignment("b", B1),), later=True),
                End(),
                reopened(1),
                See("the first requests", _whole_again),
                keeps(VIP, A2),
            ),
        ),
        source="S, E",
    ),
    Case(
        "C38",
        "delta: removed while there was no stream",
        (
            delta(
                TWO,
                BEGIN,
                Push(CDS, "2", removed=("b",), later=True),
                Push(LDS, "2", removed=("10.0.0.2_80",), later=True),
                End(),
                reopened(1),
                settled(CDS, EDS, LDS),
                asks(EDS, "a"),
                says(OTHER),
                keeps(VIP, A1),
            ),
        ),
        source="I",
    ),
    Case(
        "C39",
        "delta: all and one name, then no longer the name",
        reason="no response makes a client ask for everything and for one name beside it",
        source="S, E",
    ),
)
