"""C45 to C47, C49, C50, C52 to C54: odd and large responses."""

from __future__ import annotations

from dataclasses import replace

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from appswitch.xds.conformance.checks import ack, asks, lives, nack, settled, still
from appswitch.xds.conformance.meshes import A1, A2, B1, ONE, UNKNOWN_FIELD, VIP, broken, listener
from appswitch.xds.conformance.script import (
    Case,
    Inapplicable,
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
from appswitch.xds.resources import CDS, EDS, LDS, RawResource

BEGIN = (Start(), settled(CDS, EDS, LDS))
TTL = "xds.config.supports-resource-ttl"
LONG_NAME = "xdstp://authority.example/envoy.config.endpoint.v3.ClusterLoadAssignment/b?a=2&z=1"
"""Its parameters stand in the order of their names: some clients sort them."""
BEAT = RawResource("", b"", "a")
"""A heartbeat: `a` has not changed."""
BALLAST = {"filter_metadata": {"example": {"fields": {"ballast": {"string_value": "x" * 50_000}}}}}
BIG = (cluster("a"), *(cluster(f"c{number:03}", type=0, metadata=BALLAST) for number in range(200)))
"""10 MB of clusters, few enough for a client that takes its time with each."""


def _advertises(transcript: Transcript) -> str:
    requests = transcript.requests()
    if not requests:
        return "a request"
    if TTL not in requests[0].features:
        raise Inapplicable(f"it does not say that it knows {TTL}")
    return ""


def _beats(url: str) -> tuple[Push, See]:
    return push(url, "1", BEAT), ack(url)


_CONTROL_PLANE = discovery_pb2.DiscoveryResponse(
    control_plane=base_pb2.ControlPlane(identifier="a server")
).SerializeToString()

CASES = (
    Case(
        "C45",
        "a resource with a time to live is gone after it",
        (
            sotw(
                ONE,
                BEGIN,
                See("the feature", _advertises),
                Push(EDS, "2", (assignment("a", A2),), ttl=1),
                ack(EDS),
                says(VIP, A2),
                says(VIP),
            ),
        ),
        needs_probe=True,
        source="S, E",
    ),
    Case(
        "C46",
        "a heartbeat changes nothing",
        (
            sotw(ONE, BEGIN, _beats(CDS), _beats(EDS), still("a", asks(EDS, "a").check), keeps(VIP, A1)),
            delta(ONE, BEGIN, _beats(CDS), _beats(EDS), still("a", asks(EDS, "a").check), keeps(VIP, A1)),
        ),
        source="S, E",
    ),
    Case(
        "C47",
        "state of the world: resources in a Resource are unwrapped",
        (
            sotw(
                ONE,
                BEGIN,
                Push(EDS, "1", (assignment("b", B1),), later=True),
                Push(CDS, "2", (cluster("a"), cluster("b")), wrapped=True),
                ack(CDS),
                asks(EDS, "a", "b"),
                Push(EDS, "2", (assignment("a", A2),), wrapped=True),
                ack(EDS),
                says(VIP, A2),
            ),
        ),
        source="S",
    ),
    Case(
        "C49",
        "xdstp:// names are names",
        (
            sotw(
                ONE,
                BEGIN,
                Push(EDS, "2", (assignment(LONG_NAME, B1),), later=True),
                push(CDS, "2", cluster("a"), cluster("b", eds_cluster_config={"service_name": LONG_NAME})),
                asks(EDS, "a", LONG_NAME),
                settled(CDS, EDS),
                push(LDS, "2", listener(VIP, "b")),
                says(VIP, B1),
            ),
        ),
        source="TP1, A47, G",
    ),
    Case(
        "C50",
        "a response of 10 MB",
        (sotw(ONE, BEGIN, push(CDS, "2", *BIG), ack(CDS), keeps(VIP, A1), lives()),),
        source="measured: gRPC's default limit is 4 MiB",
    ),
    Case(
        "C52",
        "the same fault again: rejected again",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2", broken(cluster("a"))),
                nack(CDS, "1"),
                push(CDS, "3", broken(cluster("a"))),
                nack(CDS, "1"),
            ),
        ),
        source="G",
    ),
    Case(
        "C53",
        "a response of a type that is no longer asked for",
        (
            sotw(
                ONE,
                BEGIN,
                push(CDS, "2"),
                asks(EDS),
                Push(EDS, "2", (assignment("a", A2),), unasked=True),
                push(CDS, "3"),
                ack(CDS),
                still("nothing asked for", asks(EDS).check),
                lives(),
            ),
        ),
        source="G",
    ),
    Case(
        "C54",
        "fields that the client does not know are ignored",
        (
            sotw(
                ONE,
                BEGIN,
                Push(
                    EDS,
                    "2",
                    (replace(assignment("a", A2), value=assignment("a", A2).value + UNKNOWN_FIELD),),
                    extra=_CONTROL_PLANE + UNKNOWN_FIELD,
                ),
                ack(EDS),
                says(VIP, A2),
            ),
        ),
        source="protobuf",
    ),
)
