"""What REST answers and `ax get` shows of backends (see `resources.py`).  Pure."""

from __future__ import annotations

import msgspec


class DialerView(msgspec.Struct, frozen=True, kw_only=True):
    """The part that one app has in a backend's connections; fields as in BackendRow."""

    appid: str
    opened: int
    active: int
    failed: int
    refused: int
    timed_out: int
    unreachable: int
    reset: int
    sent: int
    received: int
    seconds: float


class BackendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of one service, and what became of the TCP connections of all apps to it."""

    service: str
    """`IP:port` that apps dial; `outside` and `loopback` for connections that were not balanced, `other` for
    what an app dialled beyond its share of the table."""
    name: str
    """Of the vservice; empty: the port of an app."""
    backend: str
    """`IP:port`; empty for sums."""
    appid: str
    """Empty: the backend is no app."""
    state: str
    """`ok`, `not listening`, `weight 0`, `gone`, or `failed N s ago`: left out while others are there."""
    weight: int
    opened: int
    """A first SYN was sent."""
    active: int
    """There now, or on their way."""
    failed: int
    """Never established: refused, timed out, unreachable, or given up by the app."""
    refused: int
    timed_out: int
    """No answer: to connect(), or later to data."""
    unreachable: int
    """ICMP said so."""
    reset: int
    """Ended by the backend's RST after they were established."""
    sent: int
    """Bytes that the backend acknowledged, on the connections that ended; SYN and FIN count as one each."""
    received: int
    seconds: float
    """Duration of the established ones that ended, added up; in steps of the kernel's tick (1 to 10 ms)."""
    last_failure: float | None
    """Seconds since a connection was refused, timed out, was unreachable or reset; null: never."""
    dialers: list[DialerView]
