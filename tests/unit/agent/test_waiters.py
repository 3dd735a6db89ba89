"""Apps with connect-wait: the node's program is attached exactly while there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from fakes import FakeKernel, FakeLog

from appswitch.agent.logs import Event
from appswitch.agent.waiters import Waiters, wait_flags
from appswitch.errors import Exhausted
from appswitch.model import App, Class

APP = App(1, "", Class(), IPv4Address("1.1.1.1"), connect_wait=10.0)


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    kernel = FakeKernel()
    yield kernel
    kernel.dispose()


def test_attached_while_an_app_waits(kernel: FakeKernel) -> None:
    waiters = Waiters(kernel, FakeLog(), 0.0)
    waiters.add(replace(APP, id=9, connect_wait=0.0))
    assert not kernel.waiting.on
    waiters.add(APP)
    waiters.add(replace(APP, id=2))
    waiters.remove(9)
    waiters.remove(1)
    assert kernel.waiting.on
    waiters.remove(2)
    assert not kernel.waiting.on


@pytest.mark.parametrize("wait", [0.0, 1.5])
def test_the_next_daemon_attaches_or_detaches(kernel: FakeKernel, wait: float) -> None:
    kernel.waiting.on = True  # as its predecessor left it
    waiters = Waiters(kernel, FakeLog(), 0.0)
    waiters.adopt(replace(APP, connect_wait=wait))
    waiters.resume()
    assert kernel.waiting.on is bool(wait)


def test_what_cannot_be_attached_is_logged_or_refuses_the_launch(kernel: FakeKernel) -> None:
    log = FakeLog()
    waiters = Waiters(kernel, log, 0.0)
    kernel.waiting.fail = Exhausted("no port is left")
    with pytest.raises(Exhausted):
        waiters.add(APP)
    waiters.remove(APP.id)  # was never counted
    waiters.adopt(APP)
    waiters.resume()
    assert log.count(Event.TASK_FAILED) == 1


def test_flags_and_default(kernel: FakeKernel) -> None:
    waiters = Waiters(kernel, FakeLog(), 3.0)
    assert (waiters.seconds(None), waiters.seconds(0.0), waiters.seconds(7.5)) == (3.0, 0.0, 7.5)
    assert wait_flags(APP) == 100 << 16
    assert wait_flags(replace(APP, connect_wait=600.0)) == 6000 << 16 < 1 << 32
