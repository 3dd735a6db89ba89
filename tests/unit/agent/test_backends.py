"""Rows of `ax get backends`, from the registry, the counters and the failures."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from fakes import FakeCounters
from unit.agent.rest_state import NODE_IP, app, labels, manual_servers

from appswitch.agent import backends
from appswitch.interceptor.counters import Count, Edge, EdgeKind, Failure
from appswitch.interceptor.index import Index
from appswitch.model import Backend, PortMap, Protocol, Service, Snapshot, VService

VIP, SERVER, FAR = map(IPv4Address, ("5.5.5.5", "1.1.1.1", "10.9.9.9"))
NOW = 10_000_000_000

WORLD = Snapshot(
    "host0",
    NODE_IP,
    apps=(app(1, "1.1.1.1"), app(2, "2.2.2.2"), app(3, "3.3.3.3")),
    services=(
        Service(1, Protocol.TCP, 80, 40000),
        Service(1, Protocol.UDP, 53, 40001),
        Service(3, Protocol.TCP, 90, 40003),
    ),
    vservices=(
        VService(
            "shop", (VIP,), (PortMap(80, 80),), (Backend(SERVER), Backend(FAR, 81, 3), Backend(FAR, 82, 0))
        ),
    ),
    local_ips=frozenset({NODE_IP}),
)


def to_app(dialler: int, port: int = 80) -> Edge:
    return Edge(dialler, EdgeKind.APP, VIP, port, 1, backend_port=40000)


def to_far(port: int) -> Edge:
    return Edge(2, EdgeKind.ADDRESS, VIP, 80, 0, FAR, port)


def test_every_backend_has_a_row_dialled_or_not() -> None:
    rows = backends.rows(WORLD, {}, {}, NOW)
    assert [(row.service, row.name, row.backend, row.appid, row.state, row.weight) for row in rows] == [
        ("1.1.1.1:80", "", "1.1.1.1:80", "00000001", "ok", 1),
        ("3.3.3.3:90", "", "3.3.3.3:90", "00000003", "ok", 1),
        ("5.5.5.5:80", "shop", "1.1.1.1:80", "00000001", "ok", 1),
        ("5.5.5.5:80", "shop", "10.9.9.9:81", "", "ok", 3),
        ("5.5.5.5:80", "shop", "10.9.9.9:82", "", "weight 0", 0),
    ]
    assert all(row.opened == 0 and row.last_failure is None and row.dialers == [] for row in rows)


def test_figures_are_of_all_that_dial() -> None:
    counts = {
        to_app(2): Count(opened=5, ended=3, sent=70, nanoseconds=1_500_000_000),
        to_app(3): Count(opened=1, ended=1, failed=1, refused=1, last_failure=NOW - 400_000_000),
        to_far(81): Count(opened=2, ended=2, failed=2, timed_out=1, unreachable=1, last_failure=NOW - 10**9),
    }
    failures = {(int(FAR), 81): Failure(0.42, 2, 110)}
    rows = {row.backend: row for row in backends.rows(WORLD, counts, failures, NOW) if row.name == "shop"}
    row = rows["1.1.1.1:80"]
    assert (row.opened, row.active, row.failed, row.refused, row.sent, row.seconds) == (6, 2, 1, 1, 70, 1.5)
    assert row.last_failure == 0.4 and row.state == "ok"
    assert [(each.appid, each.opened, each.active) for each in row.dialers] == [
        ("00000002", 5, 2),
        ("00000003", 1, 0),
    ]
    assert rows["10.9.9.9:81"].state == "failed 0.4 s ago"
    assert (rows["10.9.9.9:81"].timed_out, rows["10.9.9.9:81"].unreachable) == (1, 1)


def test_a_failure_that_is_over() -> None:
    rows = backends.rows(WORLD, {}, {(int(FAR), 81): Failure(1.2, 2, 110)}, NOW)
    assert [row.state for row in rows if row.backend == "10.9.9.9:81"] == ["ok"]


def test_who_does_not_listen_and_who_is_gone() -> None:
    counts = {to_app(2): Count(opened=1), to_app(2, 8000): Count(opened=2), to_far(83): Count(opened=3)}
    silent = replace(WORLD, services=())
    rows = {(row.service, row.backend): row for row in backends.rows(silent, counts, {}, NOW)}
    assert rows["5.5.5.5:80", "1.1.1.1:80"].state == "not listening"
    assert rows["5.5.5.5:80", "1.1.1.1:80"].opened == 1
    assert (
        rows["5.5.5.5:8000", "1.1.1.1:8000"].state,
        rows["5.5.5.5:8000", "1.1.1.1:8000"].opened,
    ) == ("gone", 2)
    assert (rows["5.5.5.5:80", "10.9.9.9:83"].state, rows["5.5.5.5:80", "10.9.9.9:83"].opened) == ("gone", 3)


def test_a_real_port_of_the_node() -> None:
    edge = Edge(2, EdgeKind.APP, NODE_IP, 40000, 1, backend_port=40000)
    [row] = [row for row in backends.rows(WORLD, {edge: Count(opened=1)}, {}, NOW) if row.opened]
    assert (row.service, row.appid, row.state) == (f"{NODE_IP}:40000", "00000001", "ok")


def test_sums_come_last() -> None:
    sums = {
        Edge(2, EdgeKind.OUTSIDE): Count(opened=3),
        Edge(3, EdgeKind.OUTSIDE): Count(opened=4),
        Edge(2, EdgeKind.LOOPBACK): Count(opened=5),
        Edge(2, EdgeKind.OTHER): Count(opened=6),
    }
    rows = backends.rows(WORLD, sums, {}, NOW)[-3:]
    assert [(row.service, row.backend, row.opened, len(row.dialers)) for row in rows] == [
        ("outside", "", 7, 2),
        ("loopback", "", 5, 1),
        ("other", "", 6, 1),
    ]


def test_several_apps_of_one_address() -> None:
    snapshot = manual_servers()
    edge = Edge(0xF880063E, EdgeKind.APP, SERVER, 80, 0xF83E8600, backend_port=40010)
    rows = backends.rows(snapshot, {edge: Count(opened=2)}, {}, NOW)
    assert [(row.backend, row.appid, row.opened) for row in rows] == [
        ("1.1.1.1:80", "f83e8600", 2),
        ("1.1.1.1:80", "f880063e", 0),
    ]


def test_gone() -> None:
    index = Index.of(WORLD)
    assert not backends.gone(index, to_app(2))
    assert backends.gone(index, replace(to_app(2), backend_port=40009))
    assert backends.gone(index, replace(to_app(2), target=9))
    assert not backends.gone(index, to_far(81))
    assert backends.gone(index, to_far(99))
    assert backends.gone(index, replace(to_far(81), port=8000))
    assert not backends.gone(index, Edge(2, EdgeKind.OUTSIDE))


def test_tidy_keeps_what_lives() -> None:
    counters = FakeCounters()
    counters.counts = {to_app(2): Count(opened=1), to_app(9): Count(opened=1)}
    backends.tidy(counters, replace(WORLD, apps=(app(2, "2.2.2.2", labels(zone="x")),), services=()))
    assert list(counters.counts) == [to_app(2)]
