"""Ports go round: fresh, stocked, given, resting, stocked again; none is ever in two places."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.errors import Exhausted, InvalidInput
from appswitch.interceptor.pool import QUARANTINE, Pool, format_ports, parse_ports


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("4000,6000-8000", ((4000, 4000), (6000, 8000))),
        ("40000-60000\n", ((40000, 60000),)),
        ("", ()),
        ("\n", ()),
        ("5-7,6-9,10", ((5, 10),)),
        (" 1 , 65535 ", ((1, 1), (65535, 65535))),
    ],
)
def test_parse(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ports(text) == ranges


@pytest.mark.parametrize("text", ["x", "0", "65536", "1-", "-1", "9-8", "1,,2", "1-2-3", "٣", "+1", "1e3"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidInput, match="ports"):
        parse_ports(text)


@given(st.sets(st.integers(1, 65535), max_size=60))
def test_format_is_the_reverse(ports: set[int]) -> None:
    assert {p for low, high in parse_ports(format_ports(ports)) for p in range(low, high + 1)} == ports


@given(st.text(max_size=30))
def test_parse_raises_nothing_else(text: str) -> None:
    try:
        parse_ports(text)
    except InvalidInput:
        pass


def test_blocks_then_rest_then_again() -> None:
    pool = Pool(((100, 1123),))
    assert pool.refill(0.0) == list(range(100, 612))
    assert format_ports(pool.reserved) == "100-611"
    assert len(pool.refill(0.0)) == 512
    with pytest.raises(Exhausted, match="no port is left: of 1024, 0 are held by apps and 0 rest"):
        pool.refill(0.0)
    pool.give(100)
    pool.release([100, 101, 5], 10.0)
    assert pool.counts() == {"fresh": 0, "stocked": 1022, "given": 0, "resting": 2}
    assert pool.due() == 10.0 + QUARANTINE
    assert pool.rested(69.9) == []
    assert pool.refill(70.0) == [100, 101]
    assert pool.due() is None


def test_a_port_is_released_once() -> None:
    pool = Pool(((100, 110),))
    pool.refill(0.0)
    pool.release([100], 0.0)
    pool.release([100], 5.0)
    assert pool.rested(100.0) == [100]
    assert pool.rested(1000.0) == []


def test_restore() -> None:
    pool = Pool(((100, 120),), block=4)
    pool.restore(reserved=[99, *range(100, 110)], stocked=[100, 101], given=[102, 300], now=7.0)
    assert pool.counts() == {"fresh": 11, "stocked": 2, "given": 1, "resting": 7}
    assert pool.reserved == frozenset(range(100, 110))
    assert pool.refill(7.0) == [110, 111, 112, 113]
    assert pool.rested(67.0) == list(range(103, 110))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("rgxw"), st.integers(95, 125)), max_size=60))
def test_every_port_is_in_one_place(steps: list[tuple[str, int]]) -> None:
    pool, now, queue = Pool(((100, 119),), block=6), 0.0, set[int]()
    ended: dict[int, float] = {}
    for action, port in steps:
        match action:
            case "r":
                try:
                    ports = pool.refill(now)
                except Exhausted:
                    continue
                assert not queue & set(ports)
                assert all(now - ended.get(each, -QUARANTINE) >= QUARANTINE for each in ports)
                queue.update(ports)
            case "g":
                pool.give(port)
            case "x":
                pool.release([port], now)
                if port in queue:
                    queue.discard(port)
                    ended[port] = now
            case "w":
                now += port - 95
        assert sum(pool.counts().values()) == 20
        assert queue <= pool.reserved <= set(range(100, 120))
