"""C07, C20 to C22: resources that cannot be taken, and how that is said."""

from __future__ import annotations

from appswitch.xds.conformance.checks import (
    ack,
    lives,
    nack,
    settled,
)
from appswitch.xds.conformance.meshes import (
    A1,
    A2,
    B1,
    ONE,
    VIP,
    broken,
)
from appswitch.xds.conformance.script import (
    Case,
    Fault,
    Push,
    See,
    Start,
    keeps,
    push,
    says,
    sotw,
)
from appswitch.xds.conformance.transcript import Transcript
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, LDS, RawResource

BEGIN = (Start(), settled(CDS, EDS, LDS))


def _bounded(transcript: Transcript) -> str:
    sent = transcript.responses(CDS)[-1]
    answer = transcript.answer(sent)
    if answer is None:
        return "a NACK"
    size = len((answer.error or "").encode())
    if size > 64 << 10:
        raise Fault(f"error_detail has {size} bytes")
    return ""


MANY = tuple(broken(cluster(f"bad-{number:04}-{'x' * 200}")) for number in range(1000))

CASES = (
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
