"""Endpoints to weights; the figures are Envoy's (its documentation on priority and locality load)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.xds.balance import MAX_TOTAL, combine, spread
from appswitch.xds.resources import Assignment, Cluster, Discovery, Endpoint, Locality

CLUSTER = Cluster("c", Discovery.EDS, "c")


def locality(net: int, healthy: int, total: int, priority: int = 0, weight: int = 1) -> Locality:
    """Endpoints 10.NET.0.1 … of weight 1, the first `healthy` of them healthy."""
    endpoints = tuple(
        Endpoint(f"10.{net}.0.{n}", IPv4Address(f"10.{net}.0.{n}"), 80, 1, n <= healthy)
        for n in range(1, total + 1)
    )
    return Locality(("r", str(net), ""), priority, weight, endpoints)


def shares(cluster: Cluster, *localities: Locality) -> dict[int, float]:
    """Percent of the connections that each locality's net gets."""
    members = spread(cluster, Assignment("c", localities))
    total = sum(weight for _, _, weight in members)
    result: dict[int, float] = {}
    for ip, _, weight in members:
        net = ip.packed[1]
        result[net] = result.get(net, 0) + 100 * weight / total
    return {net: round(share, 2) for net, share in result.items()}


@pytest.mark.parametrize(
    ("first", "second", "third", "expected"),
    [
        (100, 100, 100, {0: 100}),
        (72, 100, 100, {0: 100}),
        (71, 100, 100, {0: 99, 1: 1}),
        (50, 60, 100, {0: 70, 1: 30}),
        (25, 100, 100, {0: 35, 1: 65}),
        (0, 100, 100, {1: 100}),
        (25, 20, 100, {0: 35, 1: 28, 2: 37}),
        (25, 25, 20, {0: 37, 1: 35, 2: 28}),  # 98 % in all: the first takes what rounding leaves
        (25, 0, 0, {0: 100}),
        (5, 0, 0, {0: 100}),
    ],
)
def test_priorities(first: int, second: int, third: int, expected: dict[int, float]) -> None:
    levels = [locality(net, healthy, 100, net) for net, healthy in enumerate((first, second, third))]
    assert shares(CLUSTER, *levels) == expected


def test_locality_weights_count_only_where_asked_for() -> None:
    places = locality(1, 1, 1, weight=90), locality(2, 1, 1, weight=10)
    assert shares(CLUSTER, *places) == {1: 50, 2: 50}
    assert shares(replace(CLUSTER, locality_weighted=True), *places) == {1: 90, 2: 10}


def test_locality_weights_shrink_with_health() -> None:
    weighted = replace(CLUSTER, locality_weighted=True)
    places = locality(1, 50, 100, weight=1), locality(2, 100, 100, weight=2)
    assert shares(weighted, *places) == pytest.approx({1: 25.93, 2: 74.07}, abs=0.02)
    assert shares(weighted, locality(1, 1, 1, weight=0), locality(2, 1, 1)) == {2: 100}


def test_when_nobody_is_healthy_all_are_used_unless_panic_is_off() -> None:
    assert shares(CLUSTER, locality(1, 0, 3)) == {1: 100}
    assert spread(replace(CLUSTER, panic_percent=0.0), Assignment("c", (locality(1, 0, 3),))) == ()
    assert spread(CLUSTER, Assignment("c", ())) == ()


def test_an_endpoint_that_comes_twice_counts_once() -> None:
    twice = locality(1, 1, 1)
    twice = replace(twice, endpoints=twice.endpoints * 2)
    assert spread(CLUSTER, Assignment("c", (twice,))) == ((IPv4Address("10.1.0.1"), 80, 1),)


def test_large_weights_are_scaled_and_none_vanishes() -> None:
    ip = IPv4Address("10.0.0.1")
    backends = combine([(1, ((ip, 80, 4_000_000_000), (ip, 81, 1)))])
    assert [backend.weight for backend in backends] == [MAX_TOTAL - 1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.lists(st.integers(1, 50), min_size=1, max_size=6)),
        min_size=1,
        max_size=4,
    )
)
def test_each_cluster_gets_exactly_its_share(clusters: list[tuple[int, list[int]]]) -> None:
    parts = [
        (weight, tuple((IPv4Address(f"10.{number}.0.{n}"), 80, own) for n, own in enumerate(owns)))
        for number, (weight, owns) in enumerate(clusters)
    ]
    backends = combine(parts)
    total = sum(backend.weight for backend in backends)
    if total > MAX_TOTAL // 2:
        return
    asked = sum(weight for weight, _ in clusters)
    for number, (weight, _) in enumerate(clusters):
        got = sum(backend.weight for backend in backends if backend.address.packed[1] == number)
        assert got * asked == weight * total
