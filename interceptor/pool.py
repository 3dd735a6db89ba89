"""The node's ports that listening apps really get: fresh, stocked, given, resting.  Pure.

The kernel's queue holds the stock and programs take from it at bind(); what they took is known when
the app listens or ends.  A port that comes back rests first: connections of its former owner may
still be in TIME_WAIT, and their peers may still dial it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from appswitch.errors import Exhausted, InvalidInput

BLOCK: Final = 512
"""Ports reserved at once: few writes of ip_local_reserved_ports, few ports idle."""
QUARANTINE: Final = 60.0
"""Seconds: TIME_WAIT of Linux (TCP_TIMEWAIT_LEN, include/net/tcp.h)."""

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, ascending, apart."""


def parse_ports(text: str) -> Ranges:
    """`4000,6000-8000`, also as /proc/sys/net/ipv4/ip_local_reserved_ports has it; empty is none.

    Raises InvalidInput.
    """
    found: list[tuple[int, int]] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        ends = [first, last if dash else first]
        if not all(end.isascii() and end.isdigit() and 0 < int(end) < 65536 for end in ends):
            raise InvalidInput(
                f"ports {text.strip()!r}: {part.strip()!r} is no port or range of ports in 1-65535"
            )
        if int(ends[0]) > int(ends[1]):
            raise InvalidInput(f"ports {text.strip()!r}: {part.strip()!r} ends before it begins")
        found.append((int(ends[0]), int(ends[1])))
    return _merged(found)


def format_ports(ports: Iterable[int]) -> str:
    """The reverse, shortest: `4000,6000-8000`."""
    ranges = _merged((port, port) for port in ports)
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


class Pool:
    """Ports of `--ports` by state.  `now` is in monotonic seconds everywhere."""

    def __init__(self, ranges: Ranges, block: int = BLOCK) -> None:
        self._block = block
        self._fresh = deque(port for low, high in _merged(ranges) for port in range(low, high + 1))
        self._all = frozenset(self._fresh)
        self._stocked: set[int] = set()
        self._given: set[int] = set()
        self._resting: deque[tuple[float, int]] = deque()

    def restore(
        self, reserved: Iterable[int], stocked: Iterable[int], given: Iterable[int], now: float
    ) -> None:
        """Take over from a former daemon: what is reserved, in the kernel's queue, and held by apps.

        Reserved ports of ours that are nowhere rest anew.  Ports outside `--ports` are left alone.
        """
        self._given = set(given) & self._all
        self._stocked = set(stocked) & self._all - self._given
        resting = set(reserved) & self._all - self._given - self._stocked
        self._resting = deque((now + QUARANTINE, port) for port in sorted(resting))
        taken = self._given | self._stocked | resting
        self._fresh = deque(port for port in sorted(self._all) if port not in taken)

    def refill(self, now: float) -> list[int]:
        """Ports to put into the kernel's queue, once they are reserved: rested ones, then fresh ones.

        Raises Exhausted if there is none of either.
        """
        ports = self.rested(now)
        while self._fresh and len(ports) < self._block:
            ports.append(self._fresh.popleft())
        self._stocked.update(ports)
        if not ports:
            raise Exhausted(
                f"no port is left: of {len(self._all)}, {len(self._given)} are held by apps and"
                f" {len(self._resting)} rest for {QUARANTINE:.0f} s after their app's end; widen --ports"
            )
        return ports

    def rested(self, now: float) -> list[int]:
        """Ports whose rest is over: put them into the kernel's queue again."""
        ports = []
        while self._resting and self._resting[0][0] <= now:
            ports.append(self._resting.popleft()[1])
        self._stocked.update(ports)
        return ports

    def give(self, port: int) -> None:
        """An app was seen to hold the port."""
        if port in self._stocked:
            self._stocked.discard(port)
            self._given.add(port)

    def release(self, ports: Iterable[int], now: float) -> None:
        """Their app ended, they rest.  Ports that are not out are ignored."""
        for port in ports:
            if port in self._given or port in self._stocked:
                self._given.discard(port)
                self._stocked.discard(port)
                self._resting.append((now + QUARANTINE, port))

    def due(self) -> float | None:
        """When `rested` will next have a port; None: never."""
        return self._resting[0][0] if self._resting else None

    @property
    def reserved(self) -> frozenset[int]:
        """What ip_local_reserved_ports must contain, lest the host's programs get one by chance."""
        return self._all - set(self._fresh)

    def counts(self) -> dict[str, int]:
        """Ports by state.  Of the stocked some are held by apps that do not listen on them yet."""
        return {
            "fresh": len(self._fresh),
            "stocked": len(self._stocked),
            "given": len(self._given),
            "resting": len(self._resting),
        }


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
