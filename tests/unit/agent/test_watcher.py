"""A refusal is logged with the rule that spoke."""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED
from ipaddress import IPv4Address

from fakes import FakeKernel, FakeLog

from appswitch.agent.logs import Event
from appswitch.agent.registry import Registry
from appswitch.agent.watcher import Watcher
from appswitch.agent.writer import Writer
from appswitch.interceptor.events import Denied
from appswitch.model import App, Class, Destination, Labels


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
