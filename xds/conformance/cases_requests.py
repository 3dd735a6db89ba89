"""C01, C08 to C13: nonces, versions, and what is asked for."""

from __future__ import annotations

from appswitch.xds.conformance.checks import (
    ack,
    asks,
    lives,
    nack,
    settled,
    still,
)
from appswitch.xds.conformance.meshes import (
    A1,
    A2,
    ONE,
    TWO,
    VIP,
    broken,
    listener,
)
from appswitch.xds.conformance.script import (
    Case,
    Fault,
    Hold,
    Push,
    See,
    Start,
    push,
    sotw,
)
from appswitch.xds.conformance.transcript import Transcript
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, LDS

BEGIN = (Start(), settled(CDS, EDS, LDS))


def _first_request(transcript: Transcript) -> str:
    """The node, and nothing that only a server can have said."""
    requests = transcript.requests(stream=0)
    if not requests:
        return "a request"
    first = requests[0]
    if not first.node:
        raise Fault("the first request has no node.id")
    if not first.url:
        raise Fault("the first request has no type_url")
    for request in requests:
        if request.node not in ("", first.node):
            raise Fault(f"node.id changed from {first.node!r} to {request.node!r}")
    for url in {request.url for request in requests}:
        began = transcript.requests(url, 0)[0]
        if began.nonce or began.version:
            raise Fault(
                f"the first request of {url} has nonce {began.nonce!r}, version_info {began.version!r}"
            )
    return ""


def _one_latest(transcript: Transcript) -> str:
    """Both responses of CDS were sent; nonces only go on."""
    sent = [response.nonce for response in transcript.responses(CDS)]
    said = [request.nonce for request in transcript.requests(CDS) if request.nonce]
    order = [sent.index(nonce) for nonce in said if nonce in sent]
    if len(order) != len(said):
        raise Fault(f"a nonce that was never sent: {said}")
    if order != sorted(order):
        raise Fault(f"nonces were said in the order {said}, sent in the order {sent}")
    if not order or order[-1] != len(sent) - 1:
        return f"an ACK with nonce {sent[-1]}"
    return ""


def _never_nothing(transcript: Transcript) -> str:
    """The first EDS request names something."""
    requests = transcript.requests(EDS, 0)
    if requests and not requests[0].names:
        raise Fault("the first EDS request has no resource_names: a wildcard to many servers")
    return ""


CASES = (
    Case(
        "C01",
        "first request: node, type, no nonce, no version",
        (sotw(ONE, BEGIN, See("the first request", _first_request)),),
        source="S, G, I",
    ),
    Case(
        "C08",
        "nonce and version are kept per type",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "5", cluster("a", alt_stat_name="x")),
                push(LDS, "7", listener(VIP, "a")),
                push(EDS, "9", assignment("a", A2)),
                ack(CDS),
                ack(LDS),
                ack(EDS),
                Hold((EDS,)),
                push(CDS, "6", cluster("a"), cluster("b")),
                asks(EDS, "a", "b", accepted="9"),
            ),
        ),
        source="S",
    ),
    Case(
        "C09",
        "a new response before the ACK of the last",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2", cluster("a", alt_stat_name="x")),
                push(CDS, "3", cluster("a", alt_stat_name="y")),
                See("the last nonce", _one_latest),
                still("no stale nonce", _one_latest),
            ),
        ),
        source="S",
    ),
    Case(
        "C10",
        "a change of subscription: latest nonce, last accepted version",
        (
            sotw(
                ONE,
                BEGIN,
                push(EDS, "2", broken(assignment("a", A2))),
                nack(EDS, "1"),
                Hold((EDS,)),
                push(CDS, "2", cluster("a"), cluster("b")),
                asks(EDS, "a", "b", accepted="1"),
            ),
        ),
        source="S, E",
    ),
    Case(
        "C11",
        "a new cluster: EDS is asked for with the full list",
        (
            sotw(
                ONE,
                BEGIN,
                Hold((EDS,)),
                push(CDS, "2", cluster("a"), cluster("b")),
                asks(EDS, "a", "b", accepted="1"),
            ),
        ),
        source="S",
    ),
    Case(
        "C12",
        "a removed cluster: the EDS list shrinks",
        (sotw(TWO, BEGIN, push(CDS, "2", cluster("a")), asks(EDS, "a"), lives()),),
        source="S, E",
    ),
    Case(
        "C13",
        "no names left: unsubscribe, but never begin with nothing",
        (
            sotw(
                (),
                Start(),
                settled(CDS),
                still("no empty first EDS request", _never_nothing),
                Push(EDS, "1", (assignment("a", A1),), later=True),
                push(CDS, "2", cluster("a")),
                asks(EDS, "a"),
                settled(CDS, EDS),
                push(CDS, "3"),
                asks(EDS),
                See("the first EDS request", _never_nothing),
            ),
        ),
        source="S, I",
    ),
)
