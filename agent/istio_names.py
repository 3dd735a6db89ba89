"""Keeps the host names of DNS clusters resolved: the questions behind `xds/resolution.py`.

Names are looked for where every program of this machine would: in /etc/hosts, then at the name servers of
/etc/resolv.conf (or `--dns-servers`), along its search list.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appswitch.agent.dns_addresses import Found, Hosts, candidates, decode_reply, local, parse_hosts, question
from appswitch.agent.dns_forward import Forwarder, HostServers
from appswitch.agent.resolv_conf import Server
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import InvalidInput
from appswitch.xds.ads import Config
from appswitch.xds.resolution import Answers, Lookup, Resolution, wanted

HOSTS = Path("/etc/hosts")


class Resolver:
    """Asks for the addresses of one name."""

    def __init__(
        self, servers: Sequence[Server] = (), *, hosts: Path = HOSTS, resolv_conf: Path | None = None
    ) -> None:
        """`servers`: asked instead of those of `resolv_conf` (the host's)."""
        self._host = HostServers(resolv_conf) if resolv_conf else HostServers()
        self._forwarder = Forwarder(lambda: tuple(servers) or self._host())
        self._hosts = hosts

    async def __call__(self, name: str) -> Found:
        """Its addresses.  Raises InvalidInput with the reason if it has none, or nobody answers."""
        if addresses := local(name, self._read_hosts()):
            return Found(True, addresses)
        found = Found(False)
        for candidate in candidates(name, self._host.conf()):
            asked = question(candidate)
            said = decode_reply(asked, await self._forwarder.ask(asked, tcp=False))
            if said.addresses:
                return said
            found = said if said.exists else found
        raise InvalidInput("it has no IPv4 address" if found.exists else "there is no such name (NXDOMAIN)")

    def _read_hosts(self) -> Hosts:
        """A small file, and a look-up in it is rare."""
        try:
            return parse_hosts(self._hosts.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return {}

    async def close(self) -> None:
        """Give up what is under way."""
        await self._forwarder.close()


@dataclass(slots=True)
class ClusterNames:
    """Knows the addresses of all host names that a configuration has."""

    changed: Callable[[], Awaitable[None]]
    """Called after news, and not again before it has returned."""
    resolve: Callable[[str], Awaitable[Found]]
    """Raises InvalidInput."""
    uniform: Callable[[float, float], float] = random.uniform
    _resolution: Resolution = field(init=False)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _news: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._resolution = Resolution(self.uniform)

    @property
    def answers(self) -> Answers:
        """What is known now, as a copy."""
        return dict(self._resolution.answers)

    @property
    def complete(self) -> bool:
        """Every name has been asked for once."""
        return self._resolution.complete

    def want(self, config: Config) -> None:
        """Keep the names of this configuration up to date, and no others."""
        self._resolution.want(wanted(config.clusters.values()), asyncio.get_running_loop().time())
        self._moved.set()

    async def run(self) -> None:
        """Run until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                for lookup in self._resolution.start(loop.time()):
                    task = spawn(f"istio-name {lookup.host}", self._ask(lookup))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                due = self._resolution.due()
                try:
                    async with asyncio.timeout_at(due):
                        await self._moved.wait()
                except TimeoutError:
                    pass
                self._moved.clear()
                if self._news:
                    self._news = False
                    await self.changed()
        finally:
            await stop(list(self._tasks))

    async def _ask(self, lookup: Lookup) -> None:
        clock = asyncio.get_running_loop().time
        try:
            found = await self.resolve(lookup.host)
        except InvalidInput as error:
            news = self._resolution.failed(lookup, str(error), clock())
        else:
            news = self._resolution.answered(lookup, found.addresses, found.ttl, clock())
        self._news = self._news or news
        self._moved.set()
