"""Rows of `ax get xds|clusters|…` from what a real Istiod sent (bookinfo, first push)."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from unit.xds.test_recordings import BOOKINFO, FIXTURES

from appswitch.agent.istio_inventory import Types, cluster_parts, page
from appswitch.errors import InvalidInput
from appswitch.xds.ads import Connected, Received
from appswitch.xds.make import assignment, cluster, endpoint, response
from appswitch.xds.recording import load
from appswitch.xds.resources import EDS, RawResource
from appswitch.xds.sotw import Sotw

REVIEWS = "reviews.default.svc.cluster.local"


@cache
def first_push(folder: str = "") -> Types:
    """What is held after a recording's first step, which came at 10.0."""
    ads = Sotw()
    ads.handle(Connected())
    for message in load(FIXTURES / folder if folder else BOOKINFO).steps[0].messages:
        ads.handle(Received(message.response, 10.0))
    return ads.held.types


def rows(kind: str, folder: str = "", now: float = 70.0) -> list[Any]:
    found, after = page(first_push(folder), kind, "", now)
    assert after == ""
    return found


def test_xds() -> None:
    found = rows("xds")
    assert {row.status for row in found} == {"ACKED"}
    assert {row.seconds for row in found} == {60.0}
    assert [row.name for row in found if row.type in ("nds", "rds")] == ["", "9080"]
    assert found[0].version.startswith("2026-")


def test_clusters() -> None:
    found = {row.name: row for row in rows("clusters")}
    subset = found[f"outbound|9080|v1|{REVIEWS}"]
    assert (subset.direction, subset.port, subset.subset, subset.service_fqdn) == (
        "outbound",
        9080,
        "v1",
        REVIEWS,
    )
    assert (subset.type, subset.object) == ("EDS", "destination-rule default/reviews")
    assert subset.version and subset.seconds == 60.0
    outside = found["PassthroughCluster"]
    assert (outside.service_fqdn, outside.type, outside.port) == ("PassthroughCluster", "ORIGINAL_DST", 0)


def test_endpoints() -> None:
    found = {(row.cluster, row.endpoint): row for row in rows("endpoints", "kitchen")}
    near = found[f"outbound|9080|v1|{REVIEWS}", "10.244.0.11:9080"]
    assert (near.status, near.weight, near.priority, near.locality) == ("HEALTHY", 3, 0, "r1/z1")
    far = found[f"outbound|9080|v1|{REVIEWS}", "10.244.0.12:9080"]
    assert (far.priority, far.locality, far.seconds) == (1, "r1/z2", 60.0)
    assert ("outbound|443||api.partner.test", "backend.partner.test:443") in found  # the cluster's own


def test_an_unhealthy_endpoint_and_a_cluster_whose_endpoints_have_not_come() -> None:
    ads = Sotw()
    ads.handle(Connected())
    ads.handle(Received(response("1", cluster("a"), cluster("b"))))
    bad = assignment("a")
    message = endpoint_pb2.ClusterLoadAssignment.FromString(bad.value)
    message.endpoints.add().lb_endpoints.append(endpoint("10.0.0.1:80", health=2))
    ads.handle(Received(response("1", RawResource(EDS, message.SerializeToString()))))
    found, _ = page(ads.held.types, "endpoints", "", 0.0)
    assert [(row.cluster, row.endpoint, row.status) for row in found] == [("a", "10.0.0.1:80", "UNHEALTHY")]


def test_listeners() -> None:
    found = [(row.address, row.port, row.match, row.destination) for row in rows("listeners", "kitchen")]
    assert ("0.0.0.0", 9080, "App: HTTP", "Route: 9080") in found
    assert ("0.0.0.0", 9080, "else", "Cluster: BlackHoleCluster") in found
    assert ("0.0.0.0", 5432, "Addr: 10.97.0.0/24", "Cluster: outbound|5432||db.corp") in found
    assert ("", 0, "-", "Inbound") in found
    (mongodb,) = (row for row in rows("listeners") if row.port == 27017)
    assert mongodb.object == "virtual-service default/mongodb"
    assert re.fullmatch(r"Cluster: outbound\S+ weight 75, outbound\S+ weight 25", mongodb.destination)


def test_routes() -> None:
    by_header, rest = (row for row in rows("routes", "kitchen") if row.vhost == f"{REVIEWS}:9080")
    assert (by_header.match, by_header.catch_all) == ("/* with headers", False)
    assert (rest.name, rest.match, rest.catch_all) == ("9080", "/*", True)
    assert rest.object == "virtual-service default/reviews"
    assert [(part.cluster.split("|")[2], part.weight) for part in rest.clusters] == [("v1", 80), ("v2", 20)]
    assert REVIEWS in rest.domains


def test_names_of_clusters() -> None:
    assert cluster_parts("inbound|80||") == ("inbound", 80, "", "")
    assert cluster_parts("a|b|c|d") == ("", 0, "", "a|b|c|d")


@pytest.mark.parametrize("kind", ["xds", "clusters", "endpoints", "listeners"])
def test_pages_add_up(kind: str) -> None:
    types, found, after, count = first_push(), [], "", 0
    while True:
        some, after = page(types, kind, after, 70.0, size=4)
        found += some
        count += 1
        if not after:
            break
    assert found == rows(kind)
    assert count > 1


def test_what_went_meanwhile_is_left_out_and_unknown_kinds_are_named() -> None:
    types = first_push()
    last, after = page(types, "xds", "zzz", 70.0)
    assert (last, after) == ([], "")
    with pytest.raises(InvalidInput, match="has no 'pods': xds, clusters"):
        page(types, "pods", "", 0.0)
