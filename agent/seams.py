"""What is below the daemon and what tests replace: kernel driver, control groups, holder, RSTs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from appswitch.agent.journal import AppRecord
from appswitch.interceptor.commands import Command, Dump
from appswitch.interceptor.counters import Count, Edge, Failures
from appswitch.interceptor.events import AdmissionRefused, Event
from appswitch.interceptor.netns import Pod
from appswitch.interceptor.sock_diag import Listener
from appswitch.interceptor.statistics import MapStatistics, ProgramStatistics
from appswitch.model import Expose, Service


class WaitingLike(Protocol):
    """What connect-wait needs of the node; see `interceptor.waiting`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class KernelDriver(Protocol):
    """`interceptor.kernel.Kernel`, as far as the daemon uses it; see there."""

    event_fd: int
    """Readable when events wait."""
    sock_map_pin: Path
    """The holder opens this map."""

    @property
    def waiting(self) -> WaitingLike: ...

    def attach(self, cgroup: Path, app_id: int, class_index: int, ip: IPv4Address, flags: int) -> None: ...

    def detach(self, cgroup: Path, *, anyones: bool = False) -> None: ...

    def set_pod(self, app_id: int, pod: Pod) -> None: ...

    def adopt_listener(self, app_id: int, ip: IPv4Address, listener: Listener, pod: Pod | None) -> None: ...

    def expose(self, app_id: int, ip: IPv4Address, expose: Expose) -> None: ...

    def owner(self, descriptor: int) -> int: ...

    def forget(self, app_id: int) -> list[int]: ...

    def apply(self, commands: Sequence[Command]) -> None: ...

    def dump(self) -> Dump: ...

    def services(self) -> list[Service]: ...

    def add_ports(self, ports: Iterable[int]) -> None: ...

    def take_ports(self) -> list[int]: ...

    def used_ports(self) -> set[int]: ...

    def set_local_addresses(self, addresses: Iterable[IPv4Address]) -> None: ...

    def read_events(self) -> list[Event]: ...

    def lost(self) -> int: ...

    def hushed(self) -> int: ...

    @property
    def holdings(self) -> HoldingsLike: ...

    @property
    def counters(self) -> CountersLike: ...

    @property
    def statistics(self) -> StatisticsLike: ...

    def close(self) -> None: ...

    def remove(self) -> None: ...


class HoldingsLike(Protocol):
    """`interceptor.holdings.Holdings`; see there."""

    def give_back(self, now: float) -> list[int]: ...


class CountersLike(Protocol):
    """`interceptor.counters.Counters`; see there."""

    def read(self) -> dict[Edge, Count]: ...

    def failures(self) -> Failures: ...

    def sweep(self, alive: Collection[int], gone: Callable[[Edge], bool]) -> None: ...


@dataclass(frozen=True, slots=True)
class InnerApp:
    """An app that `ax run` made inside another, whose filter traps its socket()."""

    inside: int
    """AppId of the other."""
    id: int
    class_index: int
    ip: IPv4Address
    cgroup: str
    """Its path below the cgroup v2 mount."""


class StatisticsLike(Protocol):
    """`interceptor.statistics.Statistics`; see there."""

    def programs(self) -> list[ProgramStatistics]: ...

    def maps(self) -> list[MapStatistics]: ...

    def enable(self) -> int: ...


class HolderLike(Protocol):
    """What keeps notify descriptors; see `holder_process.Holder`."""

    @property
    def problem(self) -> str: ...

    def start(self, hung_up: Callable[[int], None], known: Iterable[AppRecord]) -> None: ...

    async def add(self, app_id: int, class_index: int, ip: IPv4Address, descriptor: int) -> None: ...

    async def nest(self, inner: InnerApp) -> None: ...

    def remember(self, inner: InnerApp) -> None: ...

    def alive(self, app_id: int) -> bool: ...

    def remove(self, app_id: int) -> None: ...

    async def close(self, *, end: bool) -> None: ...


class ResetterLike(Protocol):
    """What tells strangers that they are refused; see `interceptor.reset`."""

    def answer(self, refused: AdmissionRefused, local: frozenset[bytes], now: float) -> bool: ...

    def close(self) -> None: ...


class Networks(Protocol):
    """The module `interceptor.network`; see there."""

    def is_ours(self, pid: int) -> bool: ...

    def commands_ours(self, pid: int, uid: int) -> bool: ...

    def is_root_of_node(self, pid: int) -> bool: ...

    def show_address(self, pidfd: int, ip: IPv4Address) -> int: ...

    def hide_address(self, namespace: int, ip: IPv4Address) -> None: ...


class Cgroups(Protocol):
    """The module `interceptor.cgroup`; see there."""

    def cgroup_root(self) -> Path: ...

    def of_process(self, pid: int) -> str: ...

    def create(self, pid: int, app_id: str) -> Path: ...

    def move(self, pid: int, cgroup: Path) -> None: ...

    def gains_no_privileges(self, cgroup: Path) -> bool: ...

    def populated(self, cgroup: Path) -> bool: ...

    def pids(self, cgroup: Path) -> list[int]: ...

    def numbers(self, cgroup: Path) -> list[int]: ...

    def remove(self, cgroup: Path) -> bool: ...
