"""C01 to C22: the state of the world."""

from __future__ import annotations

from appswitch.xds.conformance.checks import (
    ack,
    asks,
    lives,
    nack,
    reopened,
    settled,
    still,
)
from appswitch.xds.conformance.meshes import (
    A1,
    A2,
    B1,
    B2,
    HTTP,
    ONE,
    OTHER,
    TWO,
    VIP,
    WEB,
    broken,
    listener,
)
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
    sotw,
)
from appswitch.xds.conformance.transcript import Transcript
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, LDS, RDS, RawResource

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


def _bounded(transcript: Transcript) -> str:
    sent = transcript.responses(CDS)[-1]
    answer = transcript.answer(sent)
    if answer is None:
        return "a NACK"
    size = len((answer.error or "").encode())
    if size > 64 << 10:
        raise Fault(f"error_detail has {size} bytes")
    return ""


def _no_stranger(transcript: Transcript) -> str:
    requests = transcript.requests(EDS, 1)
    if not requests:
        return "a request for EDS on the new stream"
    if set(requests[0].versions) != {"a"}:
        raise Fault(f"initial_resource_versions are {dict(requests[0].versions)}; a was asked for")
    return ""


MANY = tuple(broken(cluster(f"bad-{number:04}-{'x' * 200}")) for number in range(1000))

CASES = (
    Case(
        "C01",
        "first request: node, type, no nonce, no version",
        (sotw(ONE, BEGIN, See("the first request", _first_request)),),
        source="S, G, I",
    ),
    Case(
        "C02",
        "a valid response is acknowledged",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2", cluster("a", alt_stat_name="x")),
                ack(CDS, same_names=True),
                push(EDS, "7", assignment("a", A2)),
                ack(EDS, same_names=True),
                says(VIP, A2),
            ),
        ),
        source="S, G",
    ),
    Case(
        "C03",
        "an invalid first response is rejected without a version",
        (
            sotw(
                ONE,
                Start(hold=(CDS,)),
                push(CDS, "1", broken(cluster("a"))),
                nack(CDS, ""),
                keeps(VIP),
            ),
        ),
        source="S, G",
    ),
    Case(
        "C04",
        "an invalid later response: the last good version stays",
        (sotw(ONE, BEGIN, push(CDS, "2", broken(cluster("a"))), nack(CDS, "1"), keeps(VIP, A1)),),
        source="S, E",
    ),
    Case(
        "C05",
        "a good response after a rejected one",
        (
            sotw(
                ONE,
                BEGIN,
                push(EDS, "2", broken(assignment("a", A1, A2))),
                nack(EDS, "1"),
                push(EDS, "3", assignment("a", A2)),
                ack(EDS),
                says(VIP, A2),
            ),
        ),
        source="S",
    ),
    Case(
        "C06",
        "one bad of several: the good ones apply, the bad one stays as it was",
        (
            sotw(
                TWO,
                BEGIN,
                push(EDS, "2", assignment("a", A2), broken(assignment("b", B2))),
                nack(EDS, "1"),
                says(VIP, A2),
                keeps(OTHER, B1),
            ),
        ),
        source="A46, G",
    ),
    Case(
        "C07",
        "error_detail names each bad resource, and is bounded",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2", cluster("a"), broken(cluster("first")), broken(cluster("second"))),
                nack(CDS, "1", "first", "second"),
                push(CDS, "3", *MANY),
                nack(CDS, "1"),
                See("length of error_detail", _bounded),
            ),
        ),
        source="G",
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
    Case(
        "C14",
        "CDS or LDS without a known resource: it is removed",
        (
            sotw(
                TWO,
                BEGIN,
                push(LDS, "2", listener(VIP, "a")),
                ack(LDS),
                says(OTHER),
                push(CDS, "2", cluster("a")),
                ack(CDS),
                asks(EDS, "a"),
                keeps(VIP, A1),
            ),
        ),
        source="S, G",
    ),
    Case(
        "C15",
        "EDS without a known resource: it stays",
        (
            sotw(
                TWO,
                BEGIN,
                push(EDS, "2", assignment("b", B2)),
                ack(EDS, same_names=True),
                says(OTHER, B2),
                keeps(VIP, A1),
            ),
        ),
        source="S, G",
    ),
    Case(
        "C16",
        "an empty CDS or LDS response removes everything",
        (
            sotw(
                ONE,
                BEGIN,
                push(LDS, "2"),
                ack(LDS),
                says(VIP),
                push(CDS, "2"),
                ack(CDS),
                asks(EDS),
            ),
        ),
        source="S",
    ),
    Case(
        "C17",
        "an empty EDS or RDS response changes nothing, and is acknowledged",
        (
            sotw(
                HTTP,
                Start(),
                settled(CDS, EDS, LDS, RDS),
                push(EDS, "2"),
                ack(EDS, same_names=True),
                push(RDS, "2"),
                ack(RDS, same_names=True),
                keeps(VIP, A1),
                keeps(WEB, A1),
            ),
        ),
        source="S",
    ),
    Case(
        "C18",
        "an assignment without endpoints: nobody to connect to",
        (sotw(ONE, BEGIN, push(EDS, "2", assignment("a")), ack(EDS), says(VIP)),),
        needs_probe=True,
        source="I",
    ),
    Case(
        "C19",
        "what was not asked for is ignored",
        (
            sotw(
                ONE,
                BEGIN,
                push(EDS, "2", assignment("a", A2), assignment("stranger", B1)),
                ack(EDS, same_names=True),
                says(VIP, A2),
                lives(),
            ),
            delta(
                ONE,
                BEGIN,
                push(EDS, "2", assignment("stranger", B1)),
                ack(EDS),
                End(),
                reopened(1),
                See("only what was asked for is in force", _no_stranger),
            ),
        ),
        source="S, E",
    ),
    Case(
        "C20",
        "the same name twice in one response is rejected",
        (sotw(ONE, BEGIN, push(CDS, "2", cluster("a"), cluster("a")), nack(CDS, "1"), keeps(VIP, A1)),),
        source="S",
    ),
    Case(
        "C21",
        "a response of an unknown type: the stream survives",
        (
            sotw(
                ONE,
                BEGIN,
                Push(
                    "type.googleapis.com/example.v1.Unknown",
                    "1",
                    (RawResource("type.googleapis.com/example.v1.Unknown", b"\n\x01x"),),
                    unasked=True,
                ),
                push(EDS, "2", assignment("a", A2)),
                ack(EDS),
                says(VIP, A2),
                lives(),
            ),
        ),
        source="Z",
    ),
    Case(
        "C22",
        "a resource of another type than its response is rejected",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2", cluster("a"), assignment("b", B1)),
                nack(CDS, "1"),
                keeps(VIP, A1),
            ),
        ),
        source="G",
    ),
)
