"""Ports of the pool that apps hold without using them: they are given back.

An app gets a real port for each port that it binds, and keeps it, so that the kernel itself knows of
TIME_WAIT and of sockets that are bound and do not listen.  One that served nobody for a minute is free of
both, but for a socket that is bound and never listens: the pool then finds the port taken, and tries again.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from appswitch.interceptor import abi
from appswitch.interceptor.libbpf import NOEXIST, Map

IDLE: Final = 60.0
"""Seconds without a socket that serves there: TIME_WAIT of Linux."""
PERIOD: Final = 5.0
"""Seconds between two looks: each reads the whole table."""


class Holdings:
    """What of `ports` is idle, and since when."""

    def __init__(self, ports: Map, reals: Map, usages: Map) -> None:
        self._ports = ports
        self._reals = reals
        self._usages = usages
        self._since: dict[bytes, float] = {}
        """By row of `ports`: when it was first seen idle (monotonic seconds)."""
        self._next = 0.0

    def give_back(self, now: float) -> list[int]:
        """Takes idle ports from their apps; returns the real ones, to rest before anybody gets them."""
        if now < self._next:
            return []
        self._next = now + PERIOD
        idle: dict[bytes, int] = {}
        held: Counter[int] = Counter()
        for key, value in self._ports.items():
            real, _, bits, listening, _, lasting, _ = abi.PORT.unpack(value)
            if lasting and not bits & abi.PORT_OWN:
                held[abi.PORT_KEY.unpack(key)[0]] += 1
                if listening <= 0 and real == lasting and not self._is_exposed(key, real):
                    idle[key] = real
        self._since = {key: self._since.get(key, now) for key in idle}
        given = []
        for key, since in tuple(self._since.items()):
            if now - since >= IDLE:
                del self._since[key]
                if self._drop(key, idle[key]):
                    held[abi.PORT_KEY.unpack(key)[0]] -= 1
                    given.append(idle[key])
        self._recount(lambda app: held[app])
        return given

    def _drop(self, key: bytes, real: int) -> bool:
        """Whether it was given back: where a socket has begun to serve since we looked, the row stays.

        A bound one that begins later gets a row again by `serve()`.
        """
        value = self._ports.take(key)
        if value is not None and abi.PORT.unpack(value)[3] > 0:
            with suppress(FileExistsError):  # or another socket has made one just now
                self._ports.update(key, value, NOEXIST)
            return False
        self._reals.delete(abi.REAL_KEY.pack(real, abi.PORT_KEY.unpack(key)[2], 0))
        return True

    def _is_exposed(self, key: bytes, real: int) -> bool:
        found = self._reals.get(abi.REAL_KEY.pack(real, abi.PORT_KEY.unpack(key)[2], 0))
        return found is not None and abi.REAL.unpack(found)[3] != 0

    def _recount(self, held: Callable[[int], int]) -> None:
        """The programs count up only.  A bind() meanwhile may be forgotten until the next look."""
        for key, value in self._usages.items():
            app = struct.unpack("=I", key)[0]
            ports, told, since = abi.USAGE.unpack(value)
            if ports != held(app):
                self._usages.update(key, abi.USAGE.pack(held(app), told, since), EXIST)


EXIST: Final = 2
"""BPF_EXIST: an app that ended meanwhile stays forgotten."""
