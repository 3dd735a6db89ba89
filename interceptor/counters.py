"""What became of connections: the counters that the programs keep, and the backends that failed.

One entry for each (app that dialled, what it dialled, backend it led to).  An app has at most a sixteenth
of the table; what it dials beyond that is added up in one entry of its own, so that no app crowds out
another.  Entries go when their app ends (`sweep`), or when their backend is gone and room is short.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from enum import Enum
from ipaddress import IPv4Address
from operator import attrgetter
from sys import byteorder
from typing import Final

from appswitch.interceptor import abi
from appswitch.interceptor.libbpf import Map

CROWDED: Final = 1024
"""Entries of one app from which on those of backends that are gone are removed."""

NOWHERE: Final = IPv4Address(0)


class EdgeKind(Enum):
    """Where connections led."""

    OUTSIDE = "outside"
    """Nothing of ours: whatever was dialled directly, added up."""
    APP = "app"
    ADDRESS = "address"
    """A backend of a vservice that is no app."""
    LOOPBACK = "loopback"
    """The app's own, added up."""
    OTHER = "other"
    """Beyond the app's share of the table, added up."""


_KINDS: Final = {
    abi.COUNT_OUTSIDE: EdgeKind.OUTSIDE,
    abi.COUNT_APP: EdgeKind.APP,
    abi.COUNT_ADDRESS: EdgeKind.ADDRESS,
    abi.COUNT_LOOPBACK: EdgeKind.LOOPBACK,
}


@dataclass(frozen=True, slots=True)
class Edge:
    """From an app, by what it dialled, to a backend.  Sums have `app` and `kind` alone."""

    app: int
    kind: EdgeKind
    address: IPv4Address = NOWHERE
    """What was dialled, with `port`."""
    port: int = 0
    target: int = 0
    """AppId of the backend; 0: it is no app."""
    backend: IPv4Address = NOWHERE
    """The backend that is no app."""
    backend_port: int = 0
    """Of an app: its real port on this node."""


@dataclass(frozen=True, slots=True)
class Count:
    """Connections of one edge (TCP)."""

    opened: int = 0
    """A first SYN was sent."""
    ended: int = 0
    failed: int = 0
    """Of those that ended: never established."""
    refused: int = 0
    timed_out: int = 0
    """No answer: to the first SYN, or later to data."""
    unreachable: int = 0
    """A router or this node said so by ICMP."""
    reset: int = 0
    """Ended by the backend's RST after they were established."""
    sent: int = 0
    """Bytes that the backend acknowledged, of those that ended: sequence numbers, so SYN and FIN count
    as one each, as in `ss -ti`."""
    received: int = 0
    nanoseconds: int = 0
    """How long those lived that ended after they were established, added up; in steps of a clock tick."""
    last_failure: int = 0
    """Of `refused` to `reset`, by CLOCK_MONOTONIC; 0: none."""

    @property
    def active(self) -> int:
        """Connections that are there now, or on their way."""
        return max(self.opened - self.ended, 0)

    def __add__(self, other: Count) -> Count:
        pairs = zip(_FIELDS, _values(self), _values(other), strict=True)
        sums = {name: mine + its for name, mine, its in pairs}
        return Count(**sums | {"last_failure": max(self.last_failure, other.last_failure)})


@dataclass(frozen=True, slots=True)
class Failure:
    """A backend that is no app and did not answer, or refused, when it was last dialled."""

    age: float
    """Seconds since then."""
    consecutive: int
    """Failures since it was last reached."""
    error: int
    """errno that connect() failed with."""


Failures = dict[tuple[int, int], Failure]
"""By (IPv4 address as a number, port)."""


def decode_edge(key: bytes) -> Edge:
    """A key of the map `counts`."""
    app, address, target, port, backend_port, kind, _ = abi.COUNT_KEY.unpack(key)
    dialled = IPv4Address(address), port
    if kind == abi.COUNT_APP:
        return Edge(app, EdgeKind.APP, *dialled, int.from_bytes(target, byteorder), NOWHERE, backend_port)
    if kind == abi.COUNT_ADDRESS:
        return Edge(app, EdgeKind.ADDRESS, *dialled, 0, IPv4Address(target), backend_port)
    return Edge(app, _KINDS.get(kind, EdgeKind.OTHER))


_FIELDS: Final = tuple(field.name for field in fields(Count))
_values: Final = attrgetter(*_FIELDS)


class Counters:
    """The maps.  System calls alone: may be used in a thread while others use other maps."""

    def __init__(self, counts: Map, others: Map, shares: Map, failures: Map) -> None:
        self._counts = counts
        self._others = others
        self._shares = shares
        self._failures = failures

    def read(self) -> dict[Edge, Count]:
        """All of them: some 3 µs each."""
        found = {decode_edge(key): Count(*abi.COUNT.unpack(value)) for key, value in self._counts.items()}
        for key, value in self._others.items():
            edge = Edge(int.from_bytes(key, byteorder), EdgeKind.OTHER)
            found[edge] = Count(*abi.COUNT.unpack(value))
        return found

    def failures(self) -> Failures:
        """Every backend whose last dial failed, however long ago (the kernel keeps the last 16,384)."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        found: Failures = {}
        for key, value in self._failures.items():
            ip, port, _ = abi.FAILURE_KEY.unpack(key)
            then, consecutive, error = abi.FAILURE.unpack(value)
            found[int.from_bytes(ip, "big"), port] = Failure(max(now - then, 0) / 1e9, consecutive, error)
        return found

    def sweep(self, alive: Collection[int], gone: Callable[[Edge], bool]) -> None:
        """Removes what ended apps counted; where an app has many entries, those to backends that are gone."""
        entries = {int.from_bytes(k, byteorder): struct.unpack("=Q", v)[0] for k, v in self._shares.items()}
        ended = entries.keys() - set(alive)
        left = {app: 0 for app, number in entries.items() if number > CROWDED and app not in ended}
        if not ended and not left:
            return
        for key, value in self._counts.items():
            edge = decode_edge(key)
            idle = Count(*abi.COUNT.unpack(value)).active == 0
            if edge.app in ended or (edge.app in left and idle and gone(edge)):
                self._counts.delete(key)
            elif edge.app in left:
                left[edge.app] += 1
        for app, number in left.items():  # an entry made meanwhile is missed: it is a bound, not a figure
            self._shares.update(app.to_bytes(4, byteorder), struct.pack("=Q", number))
        for app in ended:
            self._others.delete(app.to_bytes(4, byteorder))
            self._shares.delete(app.to_bytes(4, byteorder))
