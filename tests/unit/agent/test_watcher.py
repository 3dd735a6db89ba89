"""A refusal is logged with the rule that spoke."""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED
from ipaddress import IPv4Address

from fakes import FakeKernel, FakeLog

from appswitch.agent.logs import Event
from appswitch.agent.registry import Registry
from appswitch.agent.watcher import REFUSALS, Watcher, settled
from appswitch.agent.writer import Writer
from appswitch.interceptor.events import Crowded, Denied, ListenerDown, ListenerUp, PoolEmpty, TableFull
from appswitch.model import App, Class, Destination, Labels, Protocol, Service


def test_the_rule_is_named() -> None:
    kernel, log = FakeKernel(), FakeLog()
    registry = Registry("n", IPv4Address("10.0.0.1"))
    prod = Class(Labels(frozenset([("role", "prod")])))
    registry.add_app(App(1, "u", Class(), IPv4Address("1.1.1.1")))
    registry.add_app(App(2, "u", prod, IPv4Address("2.2.2.2")))
    registry.index.touched.clear()
    watcher = Watcher(registry, kernel, Writer(registry, kernel, log, lambda: None), log, lambda: None)
    kernel.push(
        Denied(1, Destination(IPv4Address("2.2.2.2"), 80), EACCES, 0),
        Denied(1, Destination(IPv4Address("127.0.0.1"), 80), ECONNREFUSED, 0),
        Denied(9, Destination(IPv4Address("2.2.2.2"), 80), EACCES, 0),
    )
    watcher.read()
    policy, loopback, unknown = [fields for event, fields in log.events if event is Event.CONNECT_DENIED]
    assert policy["rule"] == "app" and "shares a label with zone=default" in policy["text"]
    assert (loopback["rule"], loopback["error"]) == ("loopback", "ECONNREFUSED")
    assert "rule" not in unknown and unknown["app"] == "00000009"
    kernel.dispose()


def test_a_flood_costs_neither_time_nor_ports() -> None:
    kernel, log, fills = FakeKernel(), FakeLog(), []
    registry = Registry("n", IPv4Address("10.0.0.1"))
    writer = Writer(registry, kernel, log, lambda: None)
    watcher = Watcher(registry, kernel, writer, log, lambda: fills.append(1))
    kernel.push(*[PoolEmpty(1, 80, Protocol.TCP)] * 2 * REFUSALS, TableFull(1, 80, Protocol.TCP))
    watcher.read()
    assert fills == [1]
    assert log.count(Event.POOL_EMPTY) == REFUSALS and log.count(Event.TABLE_FULL) == 0
    watcher.sweep()
    assert log.events[-1] == (Event.REFUSALS_COUNTED, {"count": REFUSALS + 1})
    kernel.dispose()


def test_what_the_kernel_did_not_tell_is_counted_and_a_crowded_app_is_named() -> None:
    kernel, log = FakeKernel(), FakeLog()
    kernel.untold = 70  # before this daemon
    registry = Registry("n", IPv4Address("10.0.0.1"))
    watcher = Watcher(registry, kernel, Writer(registry, kernel, log, lambda: None), log, lambda: None)
    watcher.sweep()
    assert log.events == []
    kernel.untold = 100
    kernel.push(Crowded(7, 4097, Protocol.TCP))
    watcher.read()
    watcher.sweep()
    watcher.sweep()
    crowded = (Event.APP_CROWDED, {"app": "00000007", "service": "4097/tcp"})
    assert log.events == [crowded, (Event.REFUSALS_COUNTED, {"count": 30})]
    kernel.dispose()


def test_a_program_that_listens_and_closes_in_a_loop() -> None:
    one, other = (Service(1, Protocol.TCP, port, 40000 + port) for port in (80, 81))
    again = Service(1, Protocol.TCP, 80, 40080, cookie=7)
    flood = [each for _ in range(3) for each in (ListenerUp(one), ListenerDown(one))]
    assert settled([ListenerUp(other), *flood]) == [ListenerUp(other), ListenerDown(one)]
    assert settled([*flood, ListenerUp(again)]) == [ListenerUp(again)]
    refused = PoolEmpty(1, 80, Protocol.TCP)
    assert settled([refused, ListenerDown(one), refused]) == [refused, ListenerDown(one), refused]
