"""Attachments: which cgroups may become apps, what is made of them, and how they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from apps_bench import Bench

from appswitch.agent.attach import Attachments, Surroundings
from appswitch.agent.logs import Event
from appswitch.agent.requests import Attachment
from appswitch.errors import AppSwitchError, Conflict, NotFound, Unsupported, UsageError
from appswitch.interceptor import abi
from appswitch.interceptor.netns import Pod
from appswitch.interceptor.sock_diag import Listener
from appswitch.model import App, Class, Labels, Protocol

POD = Pod(IPv4Address("10.1.0.5"), IPv4Address("10.1.0.1"), 77)
LISTENER = Listener(Protocol.TCP, IPv4Address(0), 80, 4711, 1)
ROLE = Class(Labels(frozenset({("role", "a")})))


@dataclass
class World:
    """A bench, and cgroups with processes."""

    bench: Bench
    pod: Pod | None = POD
    spaces: dict[int, int] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.bench.machine.cgroups.cgroup_root()

    def cgroup(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True)
        process = self.bench.process()
        self.bench.machine.cgroups.move(process.pid, path)
        return path

    def find(self, target: str, root: Path) -> Path:
        return root / target.lstrip("/")

    def run(self, work: Callable[[Attachments], object]) -> None:
        """In an event loop, with everything below it."""

        async def main() -> None:
            apps = self.bench.apps()
            around = Surroundings(
                find=self.find,
                pod_of=lambda pid: self.pod,
                space=lambda pid: self.spaces.get(pid, 1),
                listeners=lambda pid, cgroups: self.listeners,
            )
            attachments = Attachments(self.bench.parts, apps, around)
            self.apps = apps
            result = work(attachments)
            assert asyncio.iscoroutine(result)
            await result

        asyncio.run(main())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    bench = Bench(tmp_path)
    yield World(bench)
    bench.close()


def test_a_pod(world: World) -> None:
    world.cgroup("pod")
    world.listeners = [LISTENER]

    async def work(attachments: Attachments) -> None:
        app = await attachments.attach(Attachment("/pod", ROLE, IPv4Address("1.1.1.1"), "web"))
        assert (app.own_ip, app.attached, app.cgroup) == (POD.address, True, "/pod")
        kernel = world.bench.machine.kernel
        assert kernel.attached[app.id] == (world.root / "pod", 0, app.ip, abi.APP_OWN_NETWORK)
        assert kernel.pods[app.id] == POD
        assert [service.port for service in kernel.listening] == [80]
        assert [record.app for record in world.bench.journal.read().apps] == [app]
        world.apps.sweep()
        assert world.bench.registry.app(app.id) == app
        assert (await attachments.detach("web")) == app
        assert world.bench.registry.snapshot.apps == () == world.bench.journal.read().apps
        assert kernel.detached == [world.root / "pod"] and (world.root / "pod").exists()

    world.run(work)
    names = world.bench.log.names()
    assert names.index(Event.APP_ATTACHED.label) < names.index(Event.APP_DETACHED.label)


@pytest.mark.parametrize(("name", "ip"), [("", "10.1.0.5"), ("web", "")])
def test_its_address(world: World, name: str, ip: str) -> None:
    world.cgroup("pod")

    async def work(attachments: Attachments) -> None:
        app = await attachments.attach(Attachment("pod", name=name))
        assert str(app.ip) == (ip or str(world.bench.registry.vip(name)))

    world.run(work)


def test_in_the_nodes_network(world: World) -> None:
    world.cgroup("service")
    world.pod = None

    async def work(attachments: Attachments) -> None:
        app = await attachments.attach(Attachment("service"))
        assert (app.own_ip, app.ip, app.new_netns) == (None, IPv4Address("10.0.0.1"), False)
        assert world.bench.machine.kernel.attached[app.id][3] == 0

    world.run(work)


def test_ends_when_its_cgroup_is_empty_or_another(world: World) -> None:
    path = world.cgroup("pod")

    async def work(attachments: Attachments) -> None:
        app = await attachments.attach(Attachment("pod"))
        path.rename(path.with_name("old"))
        path.mkdir()
        world.apps.sweep()
        assert world.bench.registry.snapshot.apps == ()
        assert path.exists()
        app = await attachments.attach(Attachment("pod"))
        world.bench.end(world.bench.processes[0])
        world.apps.sweep()
        assert app not in world.bench.registry.snapshot.apps and path.exists()

    world.run(work)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/", UsageError),
        ("/above", Conflict),
        ("/above/app", Conflict),
        ("/above/app/child", Conflict),
        ("/empty", NotFound),
        ("/two", Conflict),
    ],
)
def test_refusals(world: World, target: str, error: type[AppSwitchError]) -> None:
    for name in ("above/app/child", "two"):
        world.cgroup(name)
    world.bench.machine.cgroups.move(world.bench.process().pid, world.root / "two")
    world.spaces = {process.pid: number for number, process in enumerate(world.bench.processes)}
    world.bench.registry.add_app(App(7, "", Class(), IPv4Address("1.1.1.1"), cgroup="/above/app"))

    async def work(attachments: Attachments) -> None:
        with pytest.raises(error, match=target):
            await attachments.attach(Attachment(target))

    world.run(work)
    assert len(world.bench.registry.snapshot.apps) == 1


def test_not_the_daemons_own(world: World) -> None:
    path = world.cgroup("own/below")
    world.bench.machine.cgroups.move(os.getpid(), path)

    async def work(attachments: Attachments) -> None:
        for target in ("/own/below", "/own"):
            with pytest.raises(Conflict, match="the daemon itself"):
                await attachments.attach(Attachment(target))

    world.run(work)


def test_what_the_kernel_refuses_leaves_nothing(world: World) -> None:
    path = world.cgroup("pod")
    world.bench.machine.kernel.fail = PermissionError(1, "another program (x) is attached")

    async def work(attachments: Attachments) -> None:
        with pytest.raises(Unsupported, match="another program"):
            await attachments.attach(Attachment("pod"))

    world.run(work)
    assert world.bench.registry.snapshot.apps == () == world.bench.journal.read().apps
    assert world.bench.machine.kernel.detached == [path]


def test_detach_what_was_not_attached(world: World) -> None:
    world.cgroup("pod")
    world.bench.registry.add_app(App(0xF0000007, "", Class(), IPv4Address("1.1.1.1"), cgroup="/x"))

    async def work(attachments: Attachments) -> None:
        with pytest.raises(NotFound):
            await attachments.detach("pod")
        with pytest.raises(Conflict, match="ends with its program"):
            await attachments.detach("f0000007")

    world.run(work)
