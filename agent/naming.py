"""Tells the DNS server all names when they changed, and no more often than it can bear."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Network
from typing import Final

from appswitch.agent.dns import DnsServer
from appswitch.agent.dns_names import NameTable
from appswitch.agent.registry import Registry

SHARE: Final = 10
"""A table of names that took t seconds to make is not made again for 10 t: 10,000 vservices that are
created one by one cost a tenth of the daemon's time, not a second each."""
LEAST: Final = 0.001


class Naming:
    """Registry → names → DNS server."""

    def __init__(self, registry: Registry, dns: DnsServer, virtual: IPv4Network) -> None:
        self._registry = registry
        self._dns = dns
        self._virtual = virtual
        self._table = NameTable()
        self._made_from: tuple[object, ...] = ()
        self._pause = LEAST
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """The registry may have changed."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._make)

    def close(self) -> None:
        """Make no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _make(self) -> None:
        self._timer = None
        begin = time.monotonic()
        snapshot = self._registry.snapshot
        source = (snapshot.apps, snapshot.vservices, snapshot.names)
        if source == self._made_from:
            return
        self._made_from = source
        self._table = NameTable.build(snapshot, self._virtual, self._table)
        self._dns.update(self._table)
        self._pause = LEAST + SHARE * (time.monotonic() - begin)
