"""The holder is started, found, given what it must know, and started again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from fakes import FakeLog

from appswitch.agent.holder_process import Holder
from appswitch.agent.journal import AppRecord
from appswitch.agent.logs import Event
from appswitch.agent.seams import InnerApp
from appswitch.agent.supervisor import Supervisor
from appswitch.errors import InvalidInput, Unavailable
from appswitch.model import App, Class

TESTS = Path(__file__).resolve().parents[2]
IP = IPv4Address("1.1.1.1")


class Bench:
    """A run directory, and the holders that are made for it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.log = FakeLog()
        self.enrolled: list[int] = []
        self.ended: list[int] = []
        self.known: list[AppRecord] = []
        self.supervisor = Supervisor()

    def holder(self, deadline: float = 20) -> Holder:
        return Holder(
            self.run_dir,
            Path("/pin"),
            self.enrolled.append,
            self.log,
            self.supervisor,
            "fake_holder",
            deadline,
        )

    def asked(self) -> list[str]:
        """What the fake was asked, but for lists."""
        lines = (self.run_dir / "asked").read_text().splitlines()
        return [line for line in lines if '"list"' not in line]

    def lives(self, number: int) -> bool:
        """Whether the n-th holder runs (the children of this process that ended may be zombies)."""
        try:
            status = Path(f"/proc/{self.enrolled[number]}/status").read_text()
            return "\nState:\tZ" not in status and "\nState:\tX" not in status
        except OSError:
            return False

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent / 'src'}")
    bench = Bench(tmp_path)
    yield bench
    for pid in bench.enrolled:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def test_a_dead_holder_is_replaced_and_knows_all(bench: Bench) -> None:
    async def work() -> None:
        holder = bench.holder()
        holder.start(bench.ended.append, bench.known)
        assert holder.problem
        read, write = os.pipe()
        await holder.add(7, 3, IP, read)  # waits until it runs
        assert holder.alive(7) and not holder.problem and len(bench.enrolled) == 1
        os.kill(bench.enrolled[0], signal.SIGKILL)
        await bench.until(lambda: bench.log.count(Event.HOLDER_STARTED) == 2)
        assert bench.log.count(Event.HOLDER_LOST) == 1
        first, again, adopted = bench.asked()
        assert first == again and '"class":3' in first and '"adopt"' in adopted
        os.close(write)  # the last program with the filter ends
        await bench.until(lambda: bench.ended)
        assert bench.ended == [7] and not holder.alive(7)
        await holder.close(end=True)
        assert not bench.lives(1)

    asyncio.run(work())


def test_the_next_daemon_finds_it(bench: Bench) -> None:
    async def work() -> None:
        first = bench.holder()
        first.start(bench.ended.append, bench.known)
        read, write = os.pipe()
        await first.add(7, 3, IP, read)
        await first.close(end=False)
        second = bench.holder()
        second.start(bench.ended.append, bench.known)
        assert second.alive(7) and not second.problem
        assert bench.log.count(Event.HOLDER_FOUND) == 1 and len(set(bench.enrolled)) == 1
        second.remove(7)
        second.remove(7)
        assert not second.alive(7)
        await second.close(end=True)
        os.close(write)

    asyncio.run(work())


def test_what_is_no_notify_descriptor_is_refused(bench: Bench) -> None:
    async def work() -> None:
        holder = bench.holder()
        holder.start(bench.ended.append, bench.known)
        file = os.open(__file__, os.O_RDONLY)
        with pytest.raises(InvalidInput, match="not a notify descriptor"):
            await holder.add(7, 3, IP, file)
        with pytest.raises(OSError):
            os.fstat(file)
        assert not holder.alive(7)
        await holder.close(end=True)

    asyncio.run(work())


def test_clean_ends_an_old_one(bench: Bench) -> None:
    async def work() -> None:
        await Holder.end_old(bench.run_dir)  # there is none
        old = bench.holder()
        old.start(bench.ended.append, bench.known)
        await bench.until(lambda: bench.log.count(Event.HOLDER_STARTED))
        await old.close(end=False)
        await Holder.end_old(bench.run_dir)
        assert not bench.lives(0)

    asyncio.run(work())


def test_one_of_an_earlier_release_is_replaced(bench: Bench) -> None:
    """The new one gets what the old one held."""

    async def work() -> None:
        (bench.run_dir / "old").touch()
        first = bench.holder()
        first.start(bench.ended.append, bench.known)
        read, write = os.pipe()
        await first.add(7, 3, IP, read)
        await first.close(end=False)
        second = bench.holder()
        second.start(bench.ended.append, bench.known)
        assert second.alive(7)
        await bench.until(lambda: not second.problem)
        assert not bench.lives(0) and bench.lives(2) and bench.enrolled[0] == bench.enrolled[1]
        added, again, adopted = bench.asked()
        assert added == again and '"adopt"' in adopted
        await second.close(end=True)
        os.close(write)

    asyncio.run(work())


def test_apps_inside_others_are_told_of(bench: Bench) -> None:
    """By the one who adds, to a new holder too, and their ends."""
    inner = InnerApp(7, 8, 4, IP, "/ax-8")

    async def work() -> None:
        holder = bench.holder()
        holder.start(bench.ended.append, bench.known)
        read, write = os.pipe()
        await holder.add(7, 3, IP, read)
        await holder.nest(inner)
        os.kill(bench.enrolled[0], signal.SIGKILL)
        await bench.until(lambda: bench.log.count(Event.HOLDER_STARTED) == 2)
        holder.remove(8)
        await bench.until(lambda: "remove" in bench.asked()[-1])
        _, nested, again, *_ = bench.asked()
        assert nested == again and '"cgroup":"/ax-8"' in nested and not holder.alive(8)
        await holder.close(end=False)
        second = bench.holder()
        second.start(bench.ended.append, bench.known)
        second.remember(inner)
        os.kill(bench.enrolled[1], signal.SIGKILL)
        await bench.until(lambda: nested in bench.asked()[6:])
        await second.close(end=True)
        os.close(write)

    asyncio.run(work())


def test_what_systemd_kept(bench: Bench) -> None:
    """Neither daemon nor holder lives: apps of the journal come back, calls are finished, the rest goes."""

    async def work() -> None:
        read, write = os.pipe()
        gone, dead = os.dup(read), os.memfd_create("dead")
        app = App(7, "u", Class(), IP)
        bench.known.append(AppRecord(app, 3))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(bench.run_dir / "notify"))
            systemd.settimeout(5)
            kept = {"app-00000007": read, "app-00000008": gone, "flight-99": dead}
            bench.supervisor = Supervisor(str(bench.run_dir / "notify"), kept)
            holder = bench.holder()
            holder.start(bench.ended.append, bench.known)
            assert holder.alive(7) and not holder.alive(8)
            await bench.until(lambda: bench.log.count(Event.HOLDER_STARTED))
            added, adopted = bench.asked()
            assert '"id":7' in added and '"class":3' in added and '"adopt"' in adopted
            holder.remove(7)
            await holder.close(end=True)
            bench.supervisor.close()
            said = [systemd.recv(4096).decode().split() for _ in range(5)]
        flight = said[1][1]
        assert said == [
            ["FDSTOREREMOVE=1", "FDNAME=app-00000008"],
            ["FDSTORE=1", flight],
            ["FDSTOREREMOVE=1", "FDNAME=flight-99"],
            ["FDSTOREREMOVE=1", "FDNAME=app-00000007"],
            ["FDSTOREREMOVE=1", flight],
        ]
        os.close(write)

    asyncio.run(work())


def test_a_stopped_holder_is_waited_for(bench: Bench) -> None:
    """It costs those who need it, up to a deadline, and nobody else."""

    async def work() -> None:
        holder = bench.holder(deadline=3)
        holder.start(bench.ended.append, bench.known)
        read, write = os.pipe()
        await holder.add(7, 3, IP, read)
        os.kill(bench.enrolled[0], signal.SIGSTOP)
        waiting = asyncio.create_task(holder.add(8, 3, IP, os.dup(write)))
        await asyncio.sleep(0)
        assert holder.alive(7)
        with pytest.raises(Unavailable, match="did not answer"):
            await waiting
        assert "did not answer" in holder.problem
        os.kill(bench.enrolled[0], signal.SIGCONT)
        second = os.pipe()
        await holder.add(9, 3, IP, second[0])
        assert holder.alive(9) and not holder.problem and bench.log.count(Event.HOLDER_LOST) == 0
        os.close(write)
        os.close(second[1])
        await holder.close(end=True)

    asyncio.run(work())
