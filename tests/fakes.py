"""Stand-ins for what the daemon stands on, so that its tests need neither root nor BPF."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from kernel_model import KernelModel

from appswitch.agent.ground import Ground
from appswitch.agent.journal import AppRecord
from appswitch.agent.logs import Event, Log
from appswitch.agent.seams import InnerApp
from appswitch.agent.supervisor import Supervisor
from appswitch.errors import AppSwitchError, Exhausted
from appswitch.interceptor.commands import Command, Dump
from appswitch.interceptor.counters import Count, Edge, Failures
from appswitch.interceptor.events import AdmissionRefused
from appswitch.interceptor.events import Event as KernelEvent
from appswitch.interceptor.netns import Pod
from appswitch.interceptor.sock_diag import Listener
from appswitch.interceptor.statistics import MapStatistics, ProgramStatistics
from appswitch.model import Expose, Service


class FakeLog(Log):
    """Keeps what was logged: (event, fields)."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, **fields: Any) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        """The events' names in order."""
        return [event.label for event, _ in self.events]

    def count(self, event: Event) -> int:
        """How often it was logged."""
        return sum(each is event for each, _ in self.events)


class FakeCounters:
    """`CountersLike` that has what it is given."""

    def __init__(self) -> None:
        self.counts: dict[Edge, Count] = {}
        self.failed: Failures = {}

    def read(self) -> dict[Edge, Count]:
        return dict(self.counts)

    def failures(self) -> Failures:
        return self.failed

    def sweep(self, alive: Collection[int], gone: Callable[[Edge], bool]) -> None:
        self.counts = {edge: count for edge, count in self.counts.items() if edge.app in alive}


class FakeWaiting:
    """`WaitingLike` that remembers."""

    def __init__(self) -> None:
        self.on = False
        self.fail: AppSwitchError | None = None
        """What `start` raises."""

    def start(self) -> None:
        if self.fail is not None:
            raise self.fail
        self.on = True

    def stop(self) -> None:
        self.on = False


class FakeStatistics:
    """`StatisticsLike`: one program, which runs ten times whenever statistics are on, and two maps."""

    def __init__(self) -> None:
        self.runs = 0
        self.denied = False

    def programs(self) -> list[ProgramStatistics]:
        return [ProgramStatistics("ax_connect4", 7, 2, self.runs, 100 * self.runs, 8192)]

    def maps(self) -> list[MapStatistics]:
        return [MapStatistics("ports", 8, 3, 65536, 4096), MapStatistics("groups", 9, None, 131072, 1 << 22)]

    def enable(self) -> int:
        if self.denied:
            raise PermissionError(1, "no")
        self.runs += 10
        return os.open(os.devnull, os.O_RDONLY)


class FakeHoldings:
    """`HoldingsLike`: gives back what the test says, once."""

    def __init__(self) -> None:
        self.idle: list[int] = []

    def give_back(self, now: float) -> list[int]:
        given, self.idle = self.idle, []
        return given


class FakeKernel:
    """`KernelDriver` in memory: the tables are CORE's model, events are `push`ed by the test."""

    def __init__(self, pins: Path = Path("/nowhere")) -> None:
        self.tables = KernelModel()
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.sock_map_pin = pins / "sockets"
        self.attached: dict[int, tuple[Path, int, IPv4Address, int]] = {}
        self.detached: list[Path] = []
        self.pods: dict[int, Pod] = {}
        self.forgotten: list[int] = []
        self.exposed: list[tuple[int, int, int]] = []
        self.real_ports: dict[int, list[int]] = {}
        """By AppId: what `forget` gives back."""
        self.listening: list[Service] = []
        self.owners: dict[int, int] = {}
        """Inode number of a socket to the AppId that it is of."""
        self.queue: list[int] = []
        self.local: set[IPv4Address] = set()
        self.overflows = 0
        self.waiting = FakeWaiting()
        self.room = 1 << 30
        """Commands that `apply` still takes: then the tables are full."""
        self.closed = self.removed = False
        self.fail: OSError | None = None
        """What the next `attach` raises."""
        self.counters = FakeCounters()
        self.statistics = FakeStatistics()
        self.holdings = FakeHoldings()
        self.untold = 0
        self._events: list[KernelEvent] = []

    def push(self, *events: KernelEvent) -> None:
        """Events as from the ring buffer."""
        self._events += events
        os.eventfd_write(self.event_fd, 1)

    def attach(self, cgroup: Path, app_id: int, class_index: int, ip: IPv4Address, flags: int) -> None:
        if self.fail is not None:
            raise self.fail
        self.attached[app_id] = (cgroup, class_index, ip, flags)

    def detach(self, cgroup: Path, *, anyones: bool = False) -> None:
        self.detached.append(cgroup)

    def set_pod(self, app_id: int, pod: Pod) -> None:
        self.pods[app_id] = pod

    def adopt_listener(self, app_id: int, ip: IPv4Address, listener: Listener, pod: Pod | None) -> None:
        self.listening.append(
            Service(app_id, listener.protocol, listener.port, listener.port, cookie=listener.cookie)
        )

    def expose(self, app_id: int, ip: IPv4Address, expose: Expose) -> None:
        self.exposed.append((app_id, expose.port, expose.host_port))

    def owner(self, descriptor: int) -> int:
        return self.owners.get(os.fstat(descriptor).st_ino, 0) if descriptor >= 0 else 0

    def forget(self, app_id: int) -> list[int]:
        self.attached.pop(app_id, None)
        self.forgotten.append(app_id)
        return self.real_ports.pop(app_id, [])

    def apply(self, commands: Sequence[Command]) -> None:
        if len(commands) > self.room:
            raise Exhausted("the kernel's table 'keys' is full")
        self.tables.apply(commands, time.monotonic())

    def dump(self) -> Dump:
        return self.tables.dump()

    def services(self) -> list[Service]:
        return list(self.listening)

    def add_ports(self, ports: Iterable[int]) -> None:
        self.queue += ports

    def take_ports(self) -> list[int]:
        taken, self.queue = self.queue, []
        return taken

    def used_ports(self) -> set[int]:
        return {port for ports in self.real_ports.values() for port in ports}

    def set_local_addresses(self, addresses: Iterable[IPv4Address]) -> None:
        self.local = set(addresses)

    def read_events(self) -> list[KernelEvent]:
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            pass
        events, self._events = self._events, []
        return events

    def lost(self) -> int:
        return self.overflows

    def hushed(self) -> int:
        return self.untold

    def close(self) -> None:
        self.closed = True

    def remove(self) -> None:
        self.removed = True

    def reopened(self) -> FakeKernel:
        """As the next daemon finds it."""
        self.closed = False
        return self

    def dispose(self) -> None:
        """Close our descriptor."""
        os.close(self.event_fd)


class FakeCgroups:
    """`Cgroups` in a plain folder: a cgroup is populated while a process that was moved there lives."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.moved: dict[Path, set[int]] = {}
        self.fail: OSError | None = None
        """What the next `move` raises."""
        self.privileged = False
        """A thread of the caller's can gain privileges."""

    def cgroup_root(self) -> Path:
        return self._root

    def of_process(self, pid: int) -> str:
        for path, pids in self.moved.items():
            if pid in pids:
                return "/" + str(path.relative_to(self._root))
        return "/"

    def create(self, pid: int, app_id: str) -> Path:
        path = self._root / f"ax-{app_id}"
        path.mkdir()
        return path

    def move(self, pid: int, cgroup: Path) -> None:
        if self.fail is not None:
            raise self.fail
        self.moved.setdefault(cgroup, set()).add(pid)

    def gains_no_privileges(self, cgroup: Path) -> bool:
        return not self.privileged

    def populated(self, cgroup: Path) -> bool:
        return any(_lives(pid) for pid in self.moved.get(cgroup, ()))

    def pids(self, cgroup: Path) -> list[int]:
        return sorted(self.moved.get(cgroup, ()))

    def numbers(self, cgroup: Path) -> list[int]:
        return [cgroup.stat().st_ino] if cgroup.exists() else []

    def remove(self, cgroup: Path) -> bool:
        if self.populated(cgroup):
            return False
        if cgroup.exists():
            cgroup.rmdir()
        return True


class FakeNetworks:
    """`Networks` of which none is real."""

    def __init__(self) -> None:
        self.ours = True
        self.commanding = False
        self.shown: list[tuple[int, IPv4Address]] = []
        """What has an address: (a descriptor, the address)."""

    def is_ours(self, pid: int) -> bool:
        return self.ours

    def commands_ours(self, pid: int, uid: int) -> bool:
        return self.commanding

    def is_root_of_node(self, pid: int) -> bool:
        return False

    def show_address(self, pidfd: int, ip: IPv4Address) -> int:
        namespace = os.dup(pidfd)
        self.shown.append((namespace, ip))
        return namespace

    def hide_address(self, namespace: int, ip: IPv4Address) -> None:
        self.shown.remove((namespace, ip))


class FakeHolder:
    """`HolderLike` that remembers."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        """AppId to class index."""
        self.living: set[int] = set()
        """Apps some process of which has the filter."""
        self.problem = ""
        self.ended = False
        self.inner: dict[int, InnerApp] = {}

    def start(self, hung_up: Callable[[int], None], known: Iterable[AppRecord]) -> None: ...

    def alive(self, app_id: int) -> bool:
        return app_id in self.living

    async def add(self, app_id: int, class_index: int, ip: IPv4Address, descriptor: int) -> None:
        os.close(descriptor)
        self.held[app_id] = class_index

    async def nest(self, inner: InnerApp) -> None:
        self.inner[inner.id] = inner

    def remember(self, inner: InnerApp) -> None:
        self.inner[inner.id] = inner

    def remove(self, app_id: int) -> None:
        self.held.pop(app_id, None)
        self.inner.pop(app_id, None)

    async def close(self, *, end: bool) -> None:
        self.ended = end


class FakeResetter:
    """`ResetterLike` that remembers."""

    def __init__(self) -> None:
        self.refused: list[AdmissionRefused] = []

    def answer(self, refused: AdmissionRefused, local: frozenset[bytes], now: float) -> bool:
        self.refused.append(refused)
        return True

    def close(self) -> None: ...


class FakeMachine:
    """All of them, as a `Ground`; the same machine serves one daemon after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "cgroup").mkdir()
        self.reserved = folder / "reserved"
        self.reserved.write_text("\n")
        self.kernel = FakeKernel()
        self.cgroups = FakeCgroups(folder / "cgroup")
        self.networks = FakeNetworks()
        self.holder = FakeHolder()
        self.resetter = FakeResetter()

    def ground(self) -> Ground:
        return Ground(
            require=lambda: None,
            open_kernel=self._open,
            cgroups=self.cgroups,
            networks=self.networks,
            make_holder=self._make_holder,
            make_resetter=lambda: self.resetter,
            reserved_ports=self.reserved,
        )

    def _open(self, pins: Path, clean: bool) -> FakeKernel:
        if clean:
            self.kernel.dispose()
            self.kernel = FakeKernel(pins)
        return self.kernel.reopened()

    def _make_holder(
        self, run_dir: Path, pin: Path, enroll: Callable[[int], None], log: Log, supervisor: Supervisor
    ) -> FakeHolder:
        return self.holder


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
