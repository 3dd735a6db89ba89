"""C23 to C31, C48 and C51: what is put in force, and when."""

from __future__ import annotations

from appswitch.xds.conformance.checks import ack, answered, asks, asks_also, lives, nack, settled, still
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
    slow,
    with_unknown_filter,
)
from appswitch.xds.conformance.script import (
    Case,
    Hold,
    Probe,
    Push,
    Start,
    Unbroken,
    Watch,
    delta,
    keeps,
    push,
    says,
    sotw,
)
from appswitch.xds.make import assignment, cluster, http_listener, routes
from appswitch.xds.resources import CDS, EDS, LDS, RDS, Refusal

BEGIN = (Start(), settled(CDS, EDS, LDS))
BEGIN_HTTP = (Start(), settled(CDS, EDS, LDS, RDS))
FETCH = 2
"""Seconds of an initial_fetch_timeout."""
NOT_FOUND, UNAVAILABLE = 5, 14
"""google.rpc.Code."""
BURST = 30
"""Responses one after the other."""

_MOVE = (
    Watch(VIP),
    Push(EDS, "2", (assignment("b", B1),), later=True),
    push(CDS, "2", cluster("a"), cluster("b")),
    push(LDS, "2", listener(VIP, "b")),
    says(VIP, B1),
    Unbroken(),
)
"""All of one push at once, from cluster `a` to a new one."""

CASES = (
    Case(
        "C23",
        "an unknown extension in a listener: no crash, others are not held up",
        (
            sotw(
                ONE,
                BEGIN,
                push(LDS, "2", with_unknown_filter(listener(VIP, "a"))),
                answered(LDS),
                push(EDS, "2", assignment("a", A2)),
                ack(EDS),
                says(VIP, A2),
                lives(),
            ),
        ),
        source="G; Envoy rejects such a listener, which passes, too",
    ),
    Case(
        "C24",
        "truncated bytes in a resource of any type are rejected",
        (
            sotw(
                HTTP,
                BEGIN_HTTP,
                push(CDS, "2", broken(cluster("a"))),
                nack(CDS, "1"),
                push(EDS, "2", broken(assignment("a", A2))),
                nack(EDS, "1"),
                push(LDS, "2", broken(listener(VIP, "a")), http_listener(8080, "8080")),
                nack(LDS, "1"),
                push(RDS, "2", broken(routes("8080", web=("10.0.0.3", "a")))),
                nack(RDS, "1"),
                keeps(VIP, A1),
                keeps(WEB, A1),
            ),
        ),
        source="measured: a decoder that takes such bytes is in use",
    ),
    Case(
        "C25",
        "endpoints that never come: after the cluster's initial_fetch_timeout there are none",
        (
            sotw(
                ONE,
                BEGIN,
                Hold((EDS,)),
                push(CDS, "2", cluster("a"), slow("b", FETCH)),
                asks(EDS, "a", "b"),
                push(LDS, "2", listener(VIP, "b")),
                ack(LDS),
                says(VIP),
            ),
        ),
        needs_probe=True,
        source="S, A57, G",
    ),
    Case(
        "C26",
        "endpoints that come late are applied",
        (
            sotw(
                ONE,
                BEGIN,
                Hold((EDS,)),
                push(CDS, "2", cluster("a"), slow("b", 1)),
                push(LDS, "2", listener(VIP, "b")),
                ack(LDS),
                still("b is asked for", asks(EDS, "a", "b").check, after=1.5),
                push(EDS, "2", assignment("b", B1)),
                ack(EDS),
                says(VIP, B1),
            ),
        ),
        source="S",
    ),
    Case(
        "C27",
        "a new cluster without endpoints yet: the old routing stays until they come",
        (
            sotw(
                ONE,
                BEGIN,
                Hold((EDS,)),
                push(CDS, "2", cluster("a"), cluster("b")),
                asks(EDS, "a", "b"),
                push(LDS, "2", listener(VIP, "b")),
                ack(LDS),
                keeps(VIP, A1),
                push(EDS, "2", assignment("b", B1)),
                says(VIP, B1),
            ),
        ),
        needs_probe=True,
        source="S",
    ),
    Case(
        "C28",
        "a listener with new routes: the old one stays until they come",
        (
            sotw(
                HTTP,
                BEGIN_HTTP,
                Hold((RDS,)),
                push(LDS, "2", listener(VIP, "a"), http_listener(8080, "other")),
                ack(LDS),
                asks_also(RDS, "other"),
                keeps(WEB, A1),
                Push(EDS, "2", (assignment("b", B1),), later=True),
                push(CDS, "2", cluster("a"), cluster("b")),
                settled(CDS, EDS),
                push(RDS, "2", routes("other", web=("10.0.0.3", "b"))),
                says(WEB, B1),
            ),
        ),
        needs_probe=True,
        source="S",
    ),
    Case(
        "C29",
        "make before break: somebody is there at every moment of a move",
        (
            sotw(
                HTTP,
                BEGIN_HTTP,
                Watch(WEB),
                Push(EDS, "2", (assignment("b", B1),), later=True),
                push(CDS, "2", cluster("a"), cluster("b")),
                ack(CDS),
                asks(EDS, "a", "b"),
                settled(CDS, EDS),
                push(RDS, "2", routes("8080", web=("10.0.0.3", "b"))),
                ack(RDS),
                says(WEB, B1),
                push(CDS, "3", cluster("b")),
                ack(CDS),
                keeps(WEB, B1),
                Unbroken(),
            ),
            # Istiod's own order: one CDS that adds and removes, the new endpoints last.
            sotw(
                HTTP,
                BEGIN_HTTP,
                Watch(VIP),
                Hold((EDS,)),
                push(CDS, "2", cluster("b")),
                asks_also(EDS, "b"),
                keeps(VIP, A1),
                push(LDS, "2", listener(VIP, "b"), http_listener(8080, "8080")),
                ack(LDS),
                push(RDS, "2", routes("8080", web=("10.0.0.3", "b"))),
                ack(RDS),
                keeps(VIP, A1),
                keeps(WEB, A1),
                push(EDS, "2", assignment("b", B1)),
                says(VIP, B1),
                says(WEB, B1),
                Unbroken(),
            ),
        ),
        needs_probe=True,
        source="S, A74; a recording of Istiod",
    ),
    Case(
        "C30",
        "routes to a cluster that does not exist: others are not affected, and it recovers",
        (
            sotw(
                HTTP,
                BEGIN_HTTP,
                push(RDS, "2", routes("8080", web=("10.0.0.3", "b"))),
                ack(RDS),
                Probe(WEB, (frozenset(), frozenset({A1})), keeps=True),
                keeps(VIP, A1),
                Push(EDS, "2", (assignment("b", B1),), later=True),
                push(CDS, "2", cluster("a"), cluster("b")),
                says(WEB, B1),
            ),
        ),
        needs_probe=True,
        source="S",
    ),
    Case(
        "C31",
        "half of a push is never in force",
        (sotw(ONE, BEGIN, *_MOVE), delta(ONE, BEGIN, *_MOVE)),
        needs_probe=True,
        source="A74",
    ),
    Case(
        "C48",
        "resource_errors: what is not there is gone, what cannot be made now stays",
        (
            sotw(
                TWO,
                BEGIN,
                Push(EDS, "2", refusals=(Refusal("b", NOT_FOUND, "no such thing"),)),
                ack(EDS),
                says(OTHER),
                keeps(VIP, A1),
                Push(EDS, "3", refusals=(Refusal("a", UNAVAILABLE, "not now"),)),
                ack(EDS),
                keeps(VIP, A1),
                push(EDS, "4", assignment("b", B2)),
                ack(EDS),
                says(OTHER, B2),
            ),
        ),
        source="TP3, A88",
    ),
    Case(
        "C51",
        "an ACK says that it is in force, and every response is answered",
        (
            sotw(
                ONE,
                BEGIN,
                push(EDS, "2", assignment("a", A2)),
                ack(EDS),
                keeps(VIP, A2),
                *(
                    push(EDS, str(number), assignment("a", f"10.1.0.{number}:8080"))
                    for number in range(3, 3 + BURST)
                ),
                ack(EDS),
                keeps(VIP, f"10.1.0.{2 + BURST}:8080"),
            ),
        ),
        source="G",
    ),
)
