"""The stock of real ports: reserved, tried, taken over, given back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeKernel, FakeLog

from appswitch.agent.logs import Event
from appswitch.agent.port_stock import PortStock, is_free


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    kernel = FakeKernel()
    yield kernel
    kernel.dispose()


def stock(
    kernel: FakeKernel, folder: Path, log: FakeLog | None = None, ports: tuple[int, int] = (21000, 22999)
) -> PortStock:
    reserved = folder / "reserved"
    if not reserved.exists():
        reserved.write_text("80\n")
    return PortStock((ports,), kernel, folder, log or FakeLog(), reserved)


def test_blocks_are_reserved_as_they_are_needed(kernel: FakeKernel, tmp_path: Path) -> None:
    subject = stock(kernel, tmp_path)
    subject.start()
    assert len(kernel.queue) == 512
    assert (tmp_path / "reserved").read_text() == "80,21000-21511\n"
    kernel.real_ports[1] = [kernel.queue.pop(0)]
    subject.sweep()
    assert len(kernel.queue) == 1023 and (tmp_path / "reserved").read_text() == "80,21000-22023\n"
    subject.close(forget=True)
    assert (tmp_path / "reserved").read_text() == "80\n" and not (tmp_path / "reserved_ports").exists()


def test_the_next_daemon_takes_over(kernel: FakeKernel, tmp_path: Path) -> None:
    first = stock(kernel, tmp_path)
    first.start()
    held, lost = kernel.queue.pop(0), kernel.queue.pop(0)
    kernel.real_ports[1] = [held]
    first.close(forget=False)  # or it was killed
    second = stock(kernel, tmp_path)
    second.start()
    assert held not in kernel.queue and lost not in kernel.queue, "one is held, the other rests"
    assert len(kernel.queue) == len(set(kernel.queue)) >= 510
    assert (tmp_path / "reserved").read_text().startswith("80,21000-2")
    second.close(forget=True)
    assert (tmp_path / "reserved").read_text() == "80\n"


def test_ports_of_an_ended_app_rest(kernel: FakeKernel, tmp_path: Path) -> None:
    log = FakeLog()
    subject = stock(kernel, tmp_path, log, (21000, 21003))
    subject.start()
    taken, kernel.queue = kernel.queue, []
    kernel.real_ports[1] = taken
    subject.sweep()
    assert subject.problem and log.count(Event.POOL_LOW) == 1
    kernel.real_ports.clear()
    subject.release(taken)
    subject.sweep()
    assert kernel.queue == [], "TIME_WAIT first"
    assert log.count(Event.POOL_LOW) == 1, "told once"


def test_a_machine_that_lets_nothing_be_reserved(kernel: FakeKernel, tmp_path: Path) -> None:
    log = FakeLog()
    subject = PortStock(((21000, 21003),), kernel, tmp_path, log, Path("/proc/nowhere"))
    subject.start()
    assert len(kernel.queue) == 4
    assert log.count(Event.NOTE) == 1


def test_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert not is_free(port)
    assert is_free(port) and is_free(port, waiting=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", port))
        assert not is_free(port)


def test_ports_that_apps_no_longer_use_rest(kernel: FakeKernel, tmp_path: Path) -> None:
    subject = stock(kernel, tmp_path)
    subject.start()
    kernel.real_ports[1] = [kernel.queue.pop(0), kernel.queue.pop(0)]
    subject.sweep()
    kernel.holdings.idle = [kernel.real_ports[1].pop()]
    subject.sweep()
    assert subject._pool.counts()["resting"] == 1 and subject._pool.counts()["given"] == 1
    subject.close(forget=True)


def test_a_drained_pool_is_well_again_once_its_ports_have_rested(
    kernel: FakeKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("appswitch.agent.port_stock.time.monotonic", lambda: now[0])
    subject = stock(kernel, tmp_path, ports=(21000, 22023))
    subject.start()
    taken = []
    for _ in range(3):
        taken += kernel.queue
        kernel.queue.clear()
        kernel.real_ports[1] = taken
        subject.sweep()
    assert subject.problem
    del kernel.real_ports[1]
    subject.release(taken)
    now[0] += 59
    subject.sweep()
    assert subject.problem
    now[0] += 2
    subject.sweep()
    assert len(kernel.queue) == 1024 and not subject.problem
