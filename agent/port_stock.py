"""Keeps the kernel's queue of real ports filled, with ports that are reserved and free.

Reserved means: in ip_local_reserved_ports of this network namespace, so that no outgoing connection of
the host gets one by chance.  Free means: tried, by binding them.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from appswitch.agent.logs import Event, Log
from appswitch.agent.seams import KernelDriver
from appswitch.errors import Exhausted, InvalidInput
from appswitch.interceptor.pool import Pool, Ranges, format_ports, parse_ports

RESERVED: Final = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
FILE_NAME: Final = "reserved_ports"
"""What of the above is ours: the next daemon, or the last one's end, must tell it from the machine's own."""
LOW: Final = 512
"""Ports in the queue that make the next block be added: a burst of binds between two sweeps must fit."""


class PortStock:
    """The ports of `--ports`."""

    def __init__(
        self, ranges: Ranges, kernel: KernelDriver, run_dir: Path, log: Log, reserved: Path = RESERVED
    ) -> None:
        self._ranges = ranges
        self._pool = Pool(ranges)
        self._kernel = kernel
        self._file = run_dir / FILE_NAME
        self._reserved = reserved
        self._log = log
        self._ours: frozenset[int] = frozenset()
        self._exhausted = False

    def start(self) -> None:
        """Take over what an earlier daemon reserved, and fill the queue."""
        self._ours = self._read(self._file)
        stocked = self._kernel.take_ports()
        self._pool.restore(self._ours, stocked, self._kernel.used_ports(), time.monotonic())
        self._kernel.add_ports(stocked)
        self.sweep()

    def sweep(self) -> None:
        """Each second: learn what apps hold and no longer use, add what has rested, fill a low queue."""
        for port in self._kernel.used_ports():
            self._pool.give(port)
        now = time.monotonic()
        self._pool.release(self._kernel.holdings.give_back(now), now)
        self._add(self._pool.rested(now), now)
        if self._pool.counts()["stocked"] < LOW:
            self.fill()
        else:
            self._exhausted = False  # those that rested are enough

    def fill(self) -> None:
        """Add a block now: the queue is low, or empty."""
        now = time.monotonic()
        try:
            ports = self._pool.refill(now)
        except Exhausted as error:
            if not self._exhausted:
                self._log(Event.POOL_LOW, error=error)
            self._exhausted = True
            return
        self._exhausted = False
        self._reserve()
        self._add(ports, now)

    def release(self, ports: Iterable[int]) -> None:
        """Real ports of an app that ended: they rest."""
        self._pool.release(ports, time.monotonic())

    def covers(self, port: int) -> bool:
        """Whether it is one of `--ports`."""
        return any(low <= port <= high for low, high in self._ranges)

    @property
    def problem(self) -> str:
        """Why new servers cannot listen; empty: they can."""
        return "no real port is left for new servers: widen --ports" if self._exhausted else ""

    def close(self, *, forget: bool) -> None:
        """The daemon ends; `forget`: no app is left, so give the ports back to the machine."""
        if not forget:
            return
        self._write_reserved(frozenset())
        self._file.unlink(missing_ok=True)

    def _add(self, ports: Iterable[int], now: float) -> None:
        """Into the kernel's queue with those that are free; the others rest."""
        good: list[int] = []
        taken: list[int] = []
        for port in ports:
            (good if is_free(port) else taken).append(port)
        self._pool.release(taken, now)
        try:
            self._kernel.add_ports(good)
        except Exhausted as error:
            self._log(Event.POOL_LOW, error=error)

    def _reserve(self) -> None:
        """Bring our part of ip_local_reserved_ports up to date."""
        wanted = self._pool.reserved
        try:
            self._file.write_text(format_ports(wanted | self._ours))
        except OSError as error:
            self._log(Event.JOURNAL_FAILED, error=error.strerror)
        self._write_reserved(wanted)

    def _write_reserved(self, wanted: frozenset[int]) -> None:
        others = self._read(self._reserved) - self._ours
        try:
            self._reserved.write_text(format_ports(others | wanted) + "\n")
        except OSError as error:
            self._log(Event.NOTE, text="cannot reserve ports (ip_local_reserved_ports)", error=error.strerror)
        self._ours = wanted

    @staticmethod
    def _read(path: Path) -> frozenset[int]:
        try:
            ranges = parse_ports(path.read_text())
        except (OSError, InvalidInput):
            return frozenset()
        return frozenset(port for low, high in ranges for port in range(low, high + 1))


def is_free(port: int, *, waiting: bool = False) -> bool:
    """Whether nobody has the port, for TCP or UDP, on any address.

    `waiting`: connections in TIME_WAIT do not count, as servers with SO_REUSEADDR see it.
    """
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET6, kind) if _HAS_V6 else socket.socket(socket.AF_INET, kind) as sock:
            if _HAS_V6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, waiting)
            try:
                sock.bind(("", port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True


_HAS_V6: Final = os.path.exists("/proc/net/if_inet6")
