"""The Istio agent's messages: changes add up to the table, and nonsense is one InvalidInput."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import POLICIES

from appswitch.agent import istio_wire as wire
from appswitch.agent.resource_unsupported import Changed, Row, apply
from appswitch.errors import InvalidInput
from appswitch.model import Backend, Mesh, PortMap, VService
from appswitch.policy import InboundPolicy
from appswitch.xds.resources import Unsupported


def vservice(name: str, weight: int = 1) -> VService:
    return VService(
        name=name,
        addresses=(IPv4Address("240.240.0.1"),),
        ports=(PortMap(9080, 9080),),
        backends=(Backend(IPv4Address("10.244.0.5"), 9080, weight),),
        origin="istio",
    )


def sent(change: wire.Change) -> wire.Change:
    """What arrives."""
    data = wire.frame(wire.Report(wire.VERSION, change))
    assert wire.length(data[: wire.HEADER]) == len(data) - wire.HEADER
    arrived = wire.decode(data[wire.HEADER :]).change
    assert arrived == change
    return change


rows_of = st.tuples(st.sampled_from("abcdef"), st.integers(0, 3))
tables = st.lists(rows_of, max_size=6, unique_by=lambda row: row[0])
pairs = st.tuples(st.sampled_from(["x.default", "y"]), st.just((IPv4Address("1.2.3.4"),)))
name_lists = st.lists(pairs, max_size=2)
policies = st.lists(st.sampled_from(POLICIES), max_size=1).map(tuple)


@given(st.lists(st.tuples(tables, name_lists, policies), max_size=6), st.integers(0, 6))
def test_changes_add_up_to_the_table(
    steps: list[tuple[list[tuple[str, int]], list, tuple[InboundPolicy, ...]]],  # type: ignore[type-arg]
    restart: int,
) -> None:
    differ, merger = wire.Differ(), wire.Merger()
    for count, (rows, names, policy) in enumerate(steps):
        if count == restart:
            differ = wire.Differ()  # the agent's process died, and another one begins
        table = tuple(vservice(name, weight) for name, weight in rows)
        merged = merger.merge(sent(differ.change(Mesh(table, tuple(names), policy))))
        assert {v.name: v for v in merged.vservices} == {v.name: v for v in table}
        assert (merged.names, merged.policies) == (tuple(names), policy)


def test_only_what_changed_is_sent() -> None:
    differ = wire.Differ()
    differ.change(Mesh((vservice("a"), vservice("b"), vservice("c"))))
    change = differ.change(Mesh((vservice("a"), vservice("b", 2))))
    assert change == wire.Change(whole=False, put=(vservice("b", 2),), gone=("c",), names=None, number=2)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_invalid_input(data: bytes) -> None:
    for decode in (wire.decode, wire.decode_order):
        with pytest.raises(InvalidInput):
            decode(data)


@given(st.binary(max_size=20), st.integers(0, 200))
def test_damaged_reports(damage: bytes, where: int) -> None:
    data = wire.frame(wire.Report(wire.VERSION, wire.Change(True, (vservice("a"),))))[wire.HEADER :]
    try:
        wire.decode(data[:where] + damage + data[where + len(damage) :])
    except InvalidInput:
        pass


def test_a_frame_that_is_too_long() -> None:
    with pytest.raises(InvalidInput, match="the most is"):
        wire.length(b"\xff\xff\xff\xff")
    with pytest.raises(InvalidInput, match="of 65537 bytes; the most is 65536"):
        wire.length((65537).to_bytes(4, "big"), wire.MAX_ORDER)


def test_another_version() -> None:
    with pytest.raises(InvalidInput, match="version 9"):
        wire.decode(wire.frame(wire.Report(9))[wire.HEADER :])
    with pytest.raises(InvalidInput, match="version 9"):
        wire.decode_order(wire.frame(wire.Order(9))[wire.HEADER :])


def test_of_what_is_not_done_the_differences_are_sent() -> None:
    differ = wire.Differ()
    first, second, third = (Unsupported("cluster.lb_policy", name, "Random") for name in "abc")
    rows: dict[Row, float] = {("old", "", "", ""): 1.0}
    begun = differ.unsupported((first, second))
    assert begun.whole and len(begun.put) == 2
    apply(begun, rows, 2.0)
    changed = differ.unsupported((first, third))
    assert changed == Changed(
        False, (("cluster.lb_policy", "c", "", "Random"),), (("cluster.lb_policy", "b", "", "Random"),)
    )
    apply(changed, rows, 3.0)
    assert rows == {
        ("cluster.lb_policy", "a", "", "Random"): 2.0,
        ("cluster.lb_policy", "c", "", "Random"): 3.0,
    }
