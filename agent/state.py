"""What REST shows and changes of the running daemon: `api.State`, and Istio's tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Final

from appswitch.agent import backends, drivers, resource_origin, resource_unsupported
from appswitch.agent.attach import Attachments
from appswitch.agent.bpf import Bpf
from appswitch.agent.istio_link import IstioLink
from appswitch.agent.istio_wire import OriginWanted
from appswitch.agent.journal import Journal
from appswitch.agent.logs import Event, Log
from appswitch.agent.node import backlogs
from appswitch.agent.registry import Registry
from appswitch.agent.requests import Attachment
from appswitch.agent.resource_backends import BackendRow
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_origin import OriginView
from appswitch.agent.resource_unsupported import UnsupportedView
from appswitch.agent.resources import DriverView, Health, ProxyView, SocketView, TableView
from appswitch.agent.seams import CountersLike
from appswitch.agent.sockets import read_sockets
from appswitch.agent.writer import Writer
from appswitch.errors import Exhausted
from appswitch.interceptor.decision import Ages
from appswitch.model import App, Mesh, Snapshot, VService

STEP: Final = 250
"""Vservices of a push that are compiled at once: some 50 ms."""


@dataclass(slots=True)
class NodeState:
    """See `api.State`."""

    cluster: str
    version: str
    registry: Registry
    writer: Writer
    journal: Journal
    attachments: Attachments
    log: Log
    counters: CountersLike
    statistics: Bpf
    problems: Callable[[], list[str]]
    """What is wrong now, in words; empty: nothing."""
    driver: str = "kernel"
    istio: IstioLink | None = None
    """None: without --istio."""
    _beside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "beside"))
    """For netlink (pyroute2 runs an event loop of its own, which ours does not bear) and for saving."""
    _unsaved: Mesh | None = None
    _saving: bool = False
    _unsupported: dict[resource_unsupported.Row, float] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        """The registry's present state."""
        return self.registry.snapshot

    def sockets(self, snapshot: Snapshot) -> Sequence[SocketView]:
        """Listening sockets with inode and backlog.  Blocks on netlink: for a thread."""
        known = self._beside.submit(backlogs).result(timeout=5)
        services = tuple(replace(s, backlog=known.get(s.cookie, s.backlog)) for s in snapshot.services)
        return read_sockets(replace(snapshot, services=services))

    def backends(self, snapshot: Snapshot) -> Sequence[BackendRow]:
        """Every backend and its connections.  System calls: for a thread."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return backends.rows(snapshot, self.counters.read(), self.counters.failures(), now)

    def failed(self) -> Ages:
        """Backends that failed."""
        return backends.ages(self.counters.failures())

    async def bpf(self, seconds: float) -> Sequence[BpfView]:
        """The kernel's statistics; see `bpf.py`."""
        return await self.statistics.views(seconds)

    def unsupported(self) -> Sequence[UnsupportedView]:
        """What Istiod asks for and is not done.  Sorts: for a thread."""
        return resource_unsupported.views(dict(self._unsupported), time.monotonic())

    def keep_unsupported(self, changed: resource_unsupported.Changed) -> None:
        """What changed of it, as of now."""
        resource_unsupported.apply(changed, self._unsupported, time.monotonic())

    async def istio_pages(self, kind: str) -> AsyncIterator[bytes]:
        """Rows of Istio's configuration; none without --istio.  Raises Unavailable."""
        if self.istio is not None:
            async for page in self.istio.pages(kind):
                yield page

    async def istio_origin(self, address: IPv4Address, port: int) -> OriginView | None:
        """Where Istio's decision about a VIP and port comes from.  Raises Unavailable, InvalidInput."""
        if self.istio is None:
            return None
        return resource_origin.decode((await self.istio.ask(OriginWanted(address, port))).data)

    def proxies(self) -> Sequence[ProxyView]:
        """None yet: nothing is relayed on one node."""
        return ()

    def drivers(self) -> Sequence[DriverView]:
        """Every driver, and why not."""
        return drivers.probe(self.driver)

    def health(self) -> Health:
        """Whether all is well, and how full the tables are."""
        snapshot = self.registry.snapshot
        problems = self.problems()
        return Health(
            status="degraded" if problems else "ok",
            problems=problems,
            version=self.version,
            node=snapshot.node,
            node_ip=str(snapshot.node_ip),
            cluster=self.cluster,
            driver=self.driver,
            apps=len(snapshot.apps),
            services=len(snapshot.services),
            vservices=len(snapshot.vservices),
            tables={
                name: TableView(used=used, capacity=capacity)
                for name, (used, capacity) in self.writer.usage().items()
            },
        )

    async def create_vservice(self, vservice: VService) -> VService:
        """Publish it; when this returns, apps reach it.  Raises as `Registry.create_vservice`, Exhausted."""
        made = self.registry.create_vservice(vservice)
        try:
            self.writer.write()
        except Exhausted:
            self.registry.delete_vservice(made.name)
            self.writer.soon()
            raise
        self.journal.vservice(made)
        self.log(Event.VSERVICE_CREATED, name=made.name, ip=",".join(map(str, made.addresses)))
        return made

    async def delete_vservice(self, name: str) -> None:
        """Withdraw it.  Raises NotFound, Conflict."""
        self.registry.delete_vservice(name)
        self.writer.write()
        self.journal.deleted(name)
        self.log(Event.VSERVICE_DELETED, name=name)

    async def attach_app(self, wanted: Attachment) -> App:
        """See `attach.Attachments`."""
        return await self.attachments.attach(wanted)

    async def detach_app(self, which: str) -> None:
        """See `attach.Attachments`."""
        await self.attachments.detach(which)

    async def apply_istio(self, pushed: Mesh) -> None:
        """A push, in the tables when this returns; one that does not fit leaves the last good one.

        A large one goes in step by step, new before old, so that launches do not wait for all of it.
        """
        before = self.registry.snapshot
        old = {each.name: each for each in before.vservices if each.origin == "istio"}
        table = dict(old)
        changed = [each for each in pushed.vservices if old.get(each.name) != each]
        former = Mesh(tuple(old.values()), before.names, before.policies, before.outbound)
        try:
            for first in range(0, len(changed) - STEP, STEP):
                table |= {each.name: each for each in changed[first : first + STEP]}
                self._replace(replace(former, vservices=tuple(table.values())))
                await asyncio.sleep(0)
            for name in self._replace(pushed):
                self.log(Event.NOTE, text="a user's vservice has the name of one of Istio's", name=name)
        except Exhausted:
            # Who may connect, and where to, is in force even so, and is kept.
            pushed = replace(former, policies=pushed.policies, outbound=pushed.outbound)
            self.registry.replace_istio(pushed)
            self.writer.soon()
        kept = self.registry.snapshot
        self._unsaved = replace(pushed, policies=kept.policies, outbound=kept.outbound)
        if not self._saving:
            self._save()

    def close(self) -> None:
        """Save what is not yet saved."""
        if self._unsaved is not None:
            self._beside.submit(self.journal.save_istio, self._unsaved)
            self._unsaved = None
        self._beside.shutdown()

    def _replace(self, table: Mesh) -> tuple[str, ...]:
        left_out = self.registry.replace_istio(table)
        self.writer.write()
        return left_out

    def _save(self) -> None:
        """At once, beside the event loop: 10,000 services take a third of a second.

        What comes meanwhile is saved when that is done, the last of it alone.
        """
        unsaved, self._unsaved = self._unsaved, None
        self._saving = unsaved is not None
        if unsaved is not None:
            loop = asyncio.get_running_loop()
            saving = self._beside.submit(self.journal.save_istio, unsaved)
            saving.add_done_callback(lambda _: loop.call_soon_threadsafe(self._save))
