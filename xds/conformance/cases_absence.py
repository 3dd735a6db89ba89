"""C14 to C19: what a response does not have, or has unasked."""

from __future__ import annotations

from appswitch.xds.conformance.checks import (
    ack,
    asks,
    lives,
    reopened,
    settled,
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
    listener,
)
from appswitch.xds.conformance.script import (
    Case,
    End,
    Fault,
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
from appswitch.xds.resources import CDS, EDS, LDS, RDS

BEGIN = (Start(), settled(CDS, EDS, LDS))


def _no_stranger(transcript: Transcript) -> str:
    requests = transcript.requests(EDS, 1)
    if not requests:
        return "a request for EDS on the new stream"
    if set(requests[0].versions) != {"a"}:
        raise Fault(f"initial_resource_versions are {dict(requests[0].versions)}; a was asked for")
    return ""


CASES = (
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
)
