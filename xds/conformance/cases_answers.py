"""C02 to C06: what is accepted, what is rejected, and how it is said."""

from __future__ import annotations

from appswitch.xds.conformance.checks import (
    ack,
    nack,
    settled,
)
from appswitch.xds.conformance.meshes import (
    A1,
    A2,
    B1,
    B2,
    ONE,
    OTHER,
    TWO,
    VIP,
    broken,
)
from appswitch.xds.conformance.script import (
    Case,
    Start,
    keeps,
    push,
    says,
    sotw,
)
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, LDS

BEGIN = (Start(), settled(CDS, EDS, LDS))


CASES = (
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
)
