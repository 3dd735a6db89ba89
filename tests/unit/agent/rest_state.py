"""An in-memory `State`, and the manual's examples as registry snapshots."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import msgspec
from fakes import FakeStatistics

from appswitch.agent import backends, drivers, resource_unsupported
from appswitch.agent import resources as view
from appswitch.agent.bpf import Bpf
from appswitch.agent.requests import Attachment
from appswitch.agent.resource_backends import BackendRow
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_origin import OriginView
from appswitch.agent.resource_unsupported import UnsupportedView
from appswitch.agent.rest import Rest
from appswitch.errors import Conflict, NotFound
from appswitch.interceptor.counters import Count, Edge, Failures
from appswitch.interceptor.decision import Ages
from appswitch.model import App, Class, Labels, Protocol, Service, Snapshot, VService

NODE_IP = IPv4Address("10.0.2.15")


MYVSVC = {"name": "myvsvc", "ip": "1.1.1.1", "backends": ["10.0.2.15"]}
EXPOSED = {**MYVSVC, "expose": [{"port": 8000, "host_port": 10000}]}


def labels(**pairs: str) -> Class:
    """A class with these labels."""
    return Class(Labels(frozenset(pairs.items())))


def app(number: int, ip: str, app_class: Class | None = None, **more: Any) -> App:
    """An app; its uid follows from its number."""
    uid = more.pop("uid", f"00000000-0000-4000-8000-{number:012x}")
    return App(number, uid, app_class or Class(), IPv4Address(ip), **more)


def manual_servers() -> Snapshot:
    """Section 1.3: two servers of one IP with different labels."""
    return Snapshot(
        "host0",
        NODE_IP,
        apps=(
            app(0xF83E8600, "1.1.1.1", labels(role="prod")),
            app(0xF880063E, "1.1.1.1", labels(role="test")),
        ),
        services=(
            Service(0xF83E8600, Protocol.TCP, 80, 40010, backlog=511),
            Service(0xF880063E, Protocol.TCP, 80, 40019, backlog=511),
        ),
    )


def manual_node1() -> Snapshot:
    """Section 4.3: `ax run -- nc -l 6000` and `ax run -- iperf3 -s` on node1."""
    return Snapshot(
        "node1",
        IPv4Address("192.168.178.2"),
        apps=(
            app(0xF00001BB, "192.168.178.2", uid="ab856b81-7db0-4d88-8a1e-1bfbf0c5fe9f"),
            app(0xF000028E, "192.168.178.2", uid="04a275bc-b9b4-4496-9c9d-a838daecdffb"),
        ),
        services=(
            Service(0xF00001BB, Protocol.TCP, 6000, 40000, backlog=1),
            Service(0xF000028E, Protocol.TCP, 5201, 40001, backlog=5),
        ),
    )


@dataclass
class MemoryState:
    """A registry that only keeps what it is told."""

    registry: Snapshot
    cluster: str = "appswitch"
    driver: str = "kernel"
    inodes: dict[int, int] = field(default_factory=dict)
    """By real port."""
    relays: tuple[view.ProxyView, ...] = ()
    counts: dict[Edge, Count] = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)
    pages: dict[str, Sequence[bytes | Exception]] = field(default_factory=dict)
    """Of Istio's configuration, by kind."""
    origins: dict[str, OriginView | Exception | None] = field(default_factory=dict)
    fault: Exception | None = None
    """Raised by the next change."""

    def snapshot(self) -> Snapshot:
        return self.registry

    def sockets(self, _snapshot: Snapshot) -> list[view.SocketView]:
        apps = {app.id: app for app in self.registry.apps}
        return [
            view.socket_view(s, apps[s.app], self.registry.node, self.inodes.get(s.real_port, 0))
            for s in self.registry.services
        ]

    def backends(self, snapshot: Snapshot) -> list[BackendRow]:
        return backends.rows(snapshot, self.counts, self.failures, 10**9)

    def failed(self) -> Ages:
        return backends.ages(self.failures)

    async def bpf(self, seconds: float) -> list[BpfView]:
        return await Bpf(FakeStatistics(), lambda: {"groups": (5, 131072)}).views(seconds)

    def unsupported(self) -> list[UnsupportedView]:
        return resource_unsupported.views(
            {("cluster.lb_policy", "outbound|80||web", "", "LEAST_REQUEST"): 0.0}, 75.0
        )

    async def istio_pages(self, kind: str) -> AsyncIterator[bytes]:
        for page in self.pages.get(kind, ()):
            if isinstance(page, Exception):
                raise page
            yield page

    async def istio_origin(self, address: IPv4Address, port: int) -> OriginView | None:
        found = self.origins[f"{address}:{port}"]
        if isinstance(found, Exception):
            raise found
        return found

    def proxies(self) -> tuple[view.ProxyView, ...]:
        return self.relays

    def drivers(self) -> tuple[view.DriverView, ...]:
        return tuple(drivers.judge(drivers.Facts("6.12.1", 1 << 21, True), "kernel"))

    def health(self) -> view.Health:
        return view.Health(
            status="ok",
            problems=[],
            version="0.1.0",
            node=self.registry.node,
            node_ip=str(self.registry.node_ip),
            cluster=self.cluster,
            driver=self.driver,
            apps=len(self.registry.apps),
            services=len(self.registry.services),
            vservices=len(self.registry.vservices),
            tables={"keys": view.TableView(used=1, capacity=131072)},
        )

    async def create_vservice(self, vservice: VService) -> VService:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        for other in self.registry.vservices:
            if other.name == vservice.name:
                raise Conflict(f"a vservice {vservice.name!r} exists already")
            shared = {pair.port for pair in other.ports} & {pair.port for pair in vservice.ports}
            if shared and set(other.addresses) & set(vservice.addresses):
                raise Conflict(f"{vservice.addresses[0]}:{min(shared)} is taken by vservice {other.name!r}")
        vservice = replace(vservice, addresses=vservice.addresses or (IPv4Address("241.1.2.3"),))
        self.registry = replace(self.registry, vservices=(*self.registry.vservices, vservice))
        return vservice

    async def attach_app(self, wanted: Attachment) -> App:
        if self.fault is not None:
            raise self.fault
        made = app(0xF0000009, str(wanted.ip or NODE_IP), wanted.app_class, name=wanted.name, attached=True)
        self.registry = replace(self.registry, apps=(*self.registry.apps, made))
        return made

    async def detach_app(self, which: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.registry = replace(
            self.registry, apps=tuple(a for a in self.registry.apps if which not in (a.id_text, a.name))
        )

    async def delete_vservice(self, name: str) -> None:
        await asyncio.sleep(0)
        kept = tuple(v for v in self.registry.vservices if v.name != name)
        if len(kept) == len(self.registry.vservices):
            raise NotFound(f"no vservice {name!r}")
        self.registry = replace(self.registry, vservices=kept)


def serve(state: MemoryState, run_dir: Path, port: int, talk: Callable[[], Awaitable[None]]) -> list[str]:
    """Run both listeners while `talk` talks to them; returns the requests that ended in our error."""
    failures: list[str] = []

    async def main() -> None:
        rest = Rest(state, "0.1.0", run_dir / "api.sock", port, lambda what, _: failures.append(what))
        await rest.start()
        try:
            async with asyncio.timeout(20):
                await talk()
        finally:
            await rest.close()

    asyncio.run(main())
    return failures


@contextmanager
def daemon(state: MemoryState, run_dir: Path) -> Any:
    """A server in a thread of its own, for code that blocks: the client and the command line."""
    loop = asyncio.new_event_loop()
    rest = Rest(state, "0.1.0", run_dir / "api.sock", 0, lambda *_: None)
    loop.run_until_complete(rest.start())
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(rest.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Talk:
    """Requests to one server, by the Unix socket or by TCP; answers are (status, decoded body)."""

    def __init__(self, run_dir: Path, port: int = 0) -> None:
        self.path, self.port = run_dir / "api.sock", port

    async def __call__(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        connector = None if self.port else aiohttp.UnixConnector(str(self.path))
        base = f"http://127.0.0.1:{self.port}" if self.port else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, base + path, **more) as answer,
        ):
            content = await answer.read()
            return answer.status, msgspec.json.decode(content) if content else None
