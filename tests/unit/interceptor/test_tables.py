"""The tables do in the kernel what `decide()` says, through any sequence of changes and restarts."""

from __future__ import annotations

from dataclasses import replace
from errno import EACCES
from fractions import Fraction
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_model import KernelModel
from worlds import ADDRESSES, LABELS, NODE_IP, POLICIES, World, changes

from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.errors import Exhausted
from appswitch.interceptor import abi
from appswitch.interceptor.blocks import Blocks
from appswitch.interceptor.commands import DeleteKey, InsertKey, SetService, WriteGroup, WriteVerdicts
from appswitch.interceptor.decision import Kind, decide
from appswitch.interceptor.index import Key
from appswitch.interceptor.packing import key_tag, pack_key, runs, unpack_key
from appswitch.interceptor.rows import Group, Row, compile_rows
from appswitch.interceptor.tables import Sizes, Tables
from appswitch.interceptor.targets import NO_ADDRESS
from appswitch.model import (
    App,
    Backend,
    Class,
    Destination,
    Labels,
    LbPolicy,
    Outbound,
    PortMap,
    Protocol,
    Service,
    VService,
)

KEY = Key(0x01010101, 80, 6)
TOLERANCE = Fraction(1, 1 << 28)


def group(*apps: int, policy: int = abi.POLICY_RANDOM) -> Group:
    entries = [abi.BACKEND.pack(app.to_bytes(4, "little"), 0, 1, 0, 0, 0xFFFFFFFF) for app in apps]
    return Group(abi.KIND_BALANCE, policy, 111, backends=b"".join(entries))


def agrees(world: World, app: App, to: Destination) -> None:
    verdict = decide(world.registry.index, app, to)
    kind, value = world.kernel.outcome(app, world.registry.class_index(app.app_class), to)
    match verdict.kind:
        case Kind.DIRECT:
            assert kind == "direct"
        case Kind.REFUSE:
            assert (kind, value) == ("refused", verdict.error)
        case Kind.BALANCE:
            assert kind == "chosen" and isinstance(value, dict)
            expected: dict[tuple[str, int, int], Fraction] = {}
            total = sum(c.weight for c in verdict.picks)
            for c in verdict.picks:
                target = ("app", c.app, c.port) if c.app else ("address", int(c.address), c.port)
                expected[target] = expected.get(target, Fraction(0)) + Fraction(c.weight, total)
            assert value.keys() == expected.keys()
            exact = verdict.policy is LbPolicy.ROUND_ROBIN
            for target, chance in expected.items():
                assert abs(value[target] - chance) <= (0 if exact else TOLERANCE)


def compiled(world: World) -> dict[Key, Row]:
    """All rows, by the plain way."""
    registry = world.registry
    return compile_rows(registry.snapshot, registry.classes, registry.peers)


def follow(steps: list[tuple[str, object]], settled: bool, lazy: bool) -> World:
    """A world after these changes; `lazy` plans now and then only."""
    world = World.settled() if settled else World()
    for step in steps:
        world.do(step)
        if not lazy:
            world.plan()
    world.plan()
    return world


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=30), st.booleans(), st.booleans())
def test_kernel_agrees_with_decide(steps: list[tuple[str, object]], settled: bool, lazy: bool) -> None:
    world = follow(steps, settled, lazy)
    for app in world.registry.snapshot.apps:
        for to in world.destinations():
            agrees(world, app, to)


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, max_size=20), st.booleans(), st.booleans())
def test_incremental_equals_full(steps: list[tuple[str, object]], settled: bool, lazy: bool) -> None:
    world = follow(steps, settled, lazy)
    assert world.planner.rows() == compiled(world)


def test_every_single_change() -> None:
    """Each thing there goes and comes back, and each app gets a neighbour: no key is forgotten."""
    first = World.settled().registry.snapshot
    steps: list[tuple[tuple[str, object], ...]] = [(("delete_vservice", "a"),)]
    steps += [(("listener_down", each), ("listener_up", each)) for each in first.services]
    for each in first.apps:
        served = next((s for s in first.services if s.app == each.id), None)
        neighbour = replace(each, id=each.id + 50)
        steps.append((("remove_app", each.id), ("add_app", each), ("listener_up", served)))
        steps.append((("add_app", neighbour), ("remove_app", each.id), ("remove_app", neighbour.id)))
    for several in steps:
        world = World.settled()
        for step in several:
            world.do(step)
            world.plan()
            assert world.planner.rows() == compiled(world)


@settings(max_examples=30, deadline=None)
@given(st.lists(changes, max_size=20))
def test_nothing_is_left_when_all_is_gone(steps: list[tuple[str, object]]) -> None:
    world = World()
    world.plan()
    before = world.planner.usage()
    for step in [*steps, ("replace_istio", []), ("set_outbound", Outbound()), ("set_dns", 5300)]:
        world.do(step)
    for app in world.registry.snapshot.apps:
        world.registry.remove_app(app.id)
    for vservice in world.registry.snapshot.vservices:
        world.registry.delete_vservice(vservice.name)
    for _ in range(3):
        world.do(("wait", 5.0))
    assert world.planner.usage() == before
    assert world.planner.due() is None
    compiler = world.planner._compiler
    assert not compiler._accesses and not compiler._keys
    assert not compiler._by_class.known and not compiler._by_peer.known


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=64, max_size=400), st.integers(0, 400))
def test_restore_survives_any_bytes(noise: bytes, at: int) -> None:
    world = World()
    for i in range(1, 4):
        world.registry.add_app(App(i, "", Class(), IPv4Address("1.1.1.1")))
    world.plan()
    dump = world.kernel.dump()
    parts = {name: bytearray(getattr(dump, name)) for name in ("services", "verdicts", "groups", "backends")}
    for i, part in enumerate(parts.values()):
        part[at : at + 64] = noise[i * 16 : i * 16 + 64]
    broken = type(dump)(dump.keys, *(bytes(part) for part in parts.values()))
    tables = Tables()
    tables.restore(broken, 0.0)
    rows = compiled(world)
    tables.update({**dict.fromkeys(tables.keys()), **rows}, 5.0)
    assert tables.rows() == rows


def test_make_before_break() -> None:
    tables = Tables()
    kinds = [type(c).__name__ for c in tables.update({KEY: Row((group(1, 2),))}, 0)]
    assert kinds == ["WriteBackends", "WriteGroup", "SetService", "InsertKey"]
    kinds = [type(c).__name__ for c in tables.update({KEY: Row((group(1),))}, 1)]
    assert kinds == ["WriteBackends", "WriteGroup", "SetService"]


def test_equal_rows_cost_nothing() -> None:
    tables = Tables()
    tables.update({KEY: Row((group(1, 2),))}, 0)
    assert tables.update({KEY: Row((group(1, 2),))}, 1) == []


def test_round_robin_goes_on_where_it_was() -> None:
    tables = Tables()
    first = tables.update({KEY: Row((group(1, 2, policy=abi.POLICY_ROUND_ROBIN),))}, 0)
    second = tables.update({KEY: Row((group(1, 3, policy=abi.POLICY_ROUND_ROBIN),))}, 1)
    old, new = (next(c for c in each if isinstance(c, WriteGroup)) for each in (first, second))
    assert old.inherit == 0 and new.inherit == old.index


def test_one_class_changes_one_word() -> None:
    tables = Tables()
    refuse = Group(abi.KIND_REFUSE, error=13)
    tables.update({KEY: Row((group(1), refuse), (0, 1, 0))}, 0)
    commands = tables.update({KEY: Row((group(1), refuse), (0, 1, 1))}, 1)
    assert [type(c) for c in commands] == [WriteVerdicts]
    assert isinstance(commands[0], WriteVerdicts) and len(commands[0].data) == 8


def test_a_row_by_peers_never_takes_the_slice_of_one_by_classes() -> None:
    """A program that has read the word may be about to read the slice."""
    tables, kernel = Tables(), KernelModel()
    refuse = Group(abi.KIND_REFUSE, error=13)
    words = []
    for now in range(4):
        row = Row((group(1), refuse), (0, 1, 0), per_peer=bool(now % 2))
        kernel.apply(commands := tables.update({KEY: row}, 10 * now), 10 * now)
        kernel.apply(tables.sweep(10 * now + 5), 10 * now + 5)
        assert [type(c) for c in commands if not isinstance(c, InsertKey)][-2:] == [WriteVerdicts, SetService]
        words.append(kernel.services[1])
        again = Tables()
        again.restore(kernel.dump(), 10 * now + 5)
        assert again.rows() == tables.rows() == {KEY: row}
    assert [bool(word & abi.SERVICE_PER_PEER) for word in words] == [False, True] * 2
    slices = [word & 0xFFFF_FFFF for word in words]
    assert all(first != second for first, second in pairwise(slices))


def launch(by_address: bool) -> tuple[int, int]:
    """Commands for one app more beside many vservices of local apps; and verdicts in use then."""
    registry = Registry("host", NODE_IP, by_address=by_address)
    planner = Planner(registry)
    labels = [Class(Labels(frozenset({("role", role)}))) for role in ("a", "b")]
    for i in range(1, 41):
        registry.add_app(App(i, f"uid-{i}", labels[i % 2], IPv4Address(0x01010100 + i)))
    for i in range(60):
        backends = tuple(Backend(IPv4Address(0x01010101 + (i + j) % 40)) for j in range(2))
        ports = (PortMap(80, 80),)
        registry.create_vservice(VService(f"v{i}", (IPv4Address(0x07070700 + i),), ports, backends))
    planner.plan(0.0)
    registry.add_app(App(99, "uid-99", labels[0], IPv4Address("1.1.2.1")))
    return len(planner.plan(1.0)), planner.usage()["verdicts"][0]


def test_addresses_cost_nothing_where_no_policy_is() -> None:
    assert launch(by_address=True) == launch(by_address=False)


def test_an_app_of_unknown_address_is_barred_from_what_is_guarded() -> None:
    """It was started by a daemon without --istio; one that is started now is not."""
    world = World()
    world.by_address = False
    world.do(("restart", False))
    for number in (1, 2):
        world.do(("add_app", App(number, f"uid-{number}", Class(LABELS[0]), ADDRESSES[number - 1])))
    world.do(("listener_up", Service(1, Protocol.TCP, 80, 40010)))
    world.by_address = True
    world.do(("restart", False))
    world.do(("add_app", App(3, "uid-3", Class(LABELS[0]), ADDRESSES[0])))
    world.do(("listener_up", Service(3, Protocol.TCP, 81, 40030)))
    to = Destination(ADDRESSES[0], 80)
    for policies, expected in (([], Kind.BALANCE), ([POLICIES[0]], Kind.REFUSE)):
        world.do(("set_policies", policies))
        world.plan()
        adopted, fresh = (decide(world.registry.index, world.registry.app(i), to) for i in (2, 3))
        assert (adopted.kind, fresh.kind) == (expected, Kind.BALANCE)
        for app in world.registry.snapshot.apps:
            for destination in world.destinations():
                agrees(world, app, destination)
    assert (adopted.error, adopted.why.partition(": ")[2]) == (EACCES, NO_ADDRESS)


def test_a_key_that_comes_back_keeps_its_index() -> None:
    tables, kernel = Tables(), KernelModel()
    for now, row in ((0.0, Row((group(1),))), (1.0, None), (1.5, Row((group(2),))), (2.0, None)):
        kernel.apply(tables.update({KEY: row}, now), now)
        kernel.apply(tables.sweep(now), now)
    assert kernel.keys
    kernel.apply(tables.sweep(2.9), 2.9)
    assert kernel.keys
    assert tables.due() == 3.0
    kernel.apply(commands := tables.sweep(3.0), 3.0)
    assert commands == [DeleteKey(pack_key(KEY))]
    again = tables.update({KEY: Row((group(1),))}, 3.5)
    assert any(isinstance(c, InsertKey) for c in again)
    kernel.apply(again, 3.5)


def test_a_key_that_comes_back_stays() -> None:
    tables, kernel = Tables(), KernelModel()
    for now, row in ((0.0, Row((group(1),))), (1.0, None), (1.5, Row((group(2),)))):
        kernel.apply(tables.update({KEY: row}, now), now)
    kernel.apply(tables.sweep(9.0), 9.0)
    assert kernel.keys and tables.rows() == {KEY: Row((group(2),))}


def test_absent_at_once() -> None:
    tables = Tables()
    tables.update({KEY: Row((group(1),))}, 0)
    assert tables.update({KEY: None}, 1) == [SetService(1, 0)]


@pytest.mark.parametrize("full", ["keys", "services", "verdicts", "groups", "backends"])
def test_full_changes_nothing(full: str) -> None:
    tables = Tables(Sizes(**{full: 64}))
    tables.update({KEY: Row((group(1),))}, 0)
    before, rows = tables.usage(), tables.rows()
    refuse = Group(abi.KIND_REFUSE, error=13)
    wanted = {Key(i, 80, 6): Row((group(1, 2), refuse), (0, 1)) for i in range(1, 65)}
    with pytest.raises(Exhausted, match=f"'{full}' is full"):
        tables.update({KEY: Row((group(2),)), **wanted}, 1)
    assert (tables.usage(), tables.rows()) == (before, rows)
    assert tables.due() is None


def test_what_fits_exactly_fits() -> None:
    tables = Tables(Sizes(keys=63, services=64))
    refuse = Row((Group(abi.KIND_REFUSE, error=111),))
    tables.update({Key(i, 0, 6): refuse for i in range(1, 64)}, 0)
    assert tables.usage()["keys"] == (63, 63)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=40), st.randoms(use_true_random=False))
def test_blocks_never_overlap_and_grow_together(sizes: list[int], random: object) -> None:
    blocks = Blocks("x", 1024)
    held: list[tuple[int, int]] = []
    for i, size in enumerate(sizes):
        try:
            held.append((blocks.take(size), size))
        except Exhausted:
            break
        if i % 3 == 2:
            blocks.give(*held.pop(i % len(held)))
    covered = [entry for first, size in held for entry in range(first, first + size)]
    assert len(covered) == len(set(covered)) and 0 not in covered
    again = Blocks("x", 1024)
    assert all(again.claim(first, size) for first, size in held)
    assert not any(again.claim(first, size) for first, size in held)
    assert again.used == blocks.used
    for first, size in held:
        blocks.give(first, size)
    assert blocks.used == 1 and blocks.take(512) == 512


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 65535), st.sampled_from((6, 17)))
def test_keys_both_ways(address: int, port: int, protocol: int) -> None:
    key = Key(address, port, protocol)
    assert unpack_key(pack_key(key)) == key
    assert key_tag(key) != key_tag(Key(address ^ 1, port, protocol))
    assert key_tag(key) != key_tag(Key(address, port ^ 1, protocol))


def test_runs() -> None:
    assert list(runs([1, 2, 3, 7, 9, 10])) == [(1, 4), (7, 8), (9, 11)]
    assert list(runs([])) == []
