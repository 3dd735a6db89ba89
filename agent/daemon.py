"""The composition root: every part of the daemon, what it needs, and what waits for it.

`run` reads top to bottom: start, ready, drain.  Parts are started in the order in which they depend on
one another and closed in reverse.  Nothing that apps need ends with the daemon: tables, programs and
holder stay; only where no app is left does it tidy up after itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from appswitch.agent import backends, node
from appswitch.agent.attach import Attachments
from appswitch.agent.bpf import Bpf
from appswitch.agent.claims import UserRules
from appswitch.agent.cli import version
from appswitch.agent.dns import DnsServer
from appswitch.agent.ground import Ground, real_ground
from appswitch.agent.holder_process import Holder
from appswitch.agent.istio_link import IstioLink
from appswitch.agent.journal import Journal
from appswitch.agent.launch import LaunchServer
from appswitch.agent.lifecycle import Apps, Parts
from appswitch.agent.logs import Event, Log
from appswitch.agent.naming import Naming
from appswitch.agent.oci_listener import OciListener
from appswitch.agent.port_stock import PortStock
from appswitch.agent.profiling import beside
from appswitch.agent.registry import Registry
from appswitch.agent.resolv_conf import parse_resolv_conf, resolv_conf
from appswitch.agent.rest import Rest
from appswitch.agent.run_dir import RunDir
from appswitch.agent.settings import Settings
from appswitch.agent.state import NodeState
from appswitch.agent.supervisor import Supervisor
from appswitch.agent.tasks import spawn, stop
from appswitch.agent.vips import candidates
from appswitch.agent.watcher import Watcher
from appswitch.agent.writer import Writer
from appswitch.errors import AppSwitchError, Exhausted, InvalidInput
from appswitch.interceptor import abi
from appswitch.model import App

SWEEP: Final = 1.0
"""Seconds between two looks at what no event tells."""
TIDY: Final = 5.0
"""Seconds after which the counters of an app that ended are gone at the latest."""
RESOLV_NAME: Final = "resolv.conf"
HOST_RESOLV: Final = Path("/etc/resolv.conf")


async def run(settings: Settings, log: Log, supervisor: Supervisor) -> None:
    """Run until SIGTERM or SIGINT.  Raises AppSwitchError or OSError if it cannot start.

    SIGHUP opens the log file anew, as log rotation wants it, and does nothing else.
    """
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, log.reopen)
    loop.set_exception_handler(lambda _, context: _failed(log, context))
    async with AsyncExitStack() as parts:
        parts.callback(supervisor.close)
        daemon = Daemon(settings, log, real_ground(), supervisor)
        await daemon.start(parts)
        supervisor.tell("READY=1")
        await stopping.wait()
        supervisor.tell("STOPPING=1")
    log(Event.STOPPED, apps=daemon.apps_left)


class Daemon:
    """All parts; `start` pushes each one's end onto the stack that it is given."""

    def __init__(
        self, settings: Settings, log: Log, ground: Ground, supervisor: Supervisor | None = None
    ) -> None:
        self._settings = settings
        self._ground = ground
        self._supervisor = supervisor or Supervisor()
        self._log = log
        self._naming: Naming | None = None
        self._holder_cgroup: Path | None = None
        self._restored = False
        """Before that nobody knows whether apps are left."""

    @property
    def apps_left(self) -> int:
        """Apps that live."""
        return len(self._registry.snapshot.apps)

    @property
    def _nobody_left(self) -> bool:
        return self._restored and not self.apps_left

    async def start(self, parts: AsyncExitStack) -> None:
        """Everything, to the log's `daemon.started`."""
        settings, log = self._settings, self._log
        self._ground.require()
        raise_limits()
        run_dir = RunDir(settings.run_dir)
        parts.callback(run_dir.close)
        self._cgroup_tag = run_dir.tag

        # The node, and what an earlier daemon left: apps, their services, vservices, tables.
        self._registry = registry = await self._make_registry()
        self._journal = Journal(run_dir.path, self._journal_failed)
        parts.callback(self._journal.close)
        forgotten = self._journal.read().apps if settings.clean else ()
        if settings.clean:
            self._journal.remove()
            await Holder.end_old(run_dir.path)
            self._supervisor.forget()
        self._kernel = kernel = self._ground.open_kernel(run_dir.pin_dir, settings.clean)
        parts.callback(self._close_kernel)
        for record in forgotten:
            self._remove_cgroup(record.app)
        kernel.set_local_addresses(registry.snapshot.local_ips)
        self._ports = PortStock(settings.driver.ports, kernel, run_dir.path, log, self._ground.reserved_ports)
        parts.callback(lambda: self._ports.close(forget=self._nobody_left))
        self._writer = Writer(registry, kernel, log, self._published)
        parts.callback(self._writer.close)
        self._holder = self._ground.make_holder(
            run_dir.path, kernel.sock_map_pin, self._enroll, log, self._supervisor
        )
        of_apps = Parts(
            registry,
            self._writer,
            kernel,
            self._ground.cgroups,
            self._ground.networks,
            self._journal,
            self._holder,
            self._ports.release,
            self._ports.covers,
            log,
            lambda: self._watcher.resync(),
            str(run_dir.path / RESOLV_NAME) if settings.dns.enabled else "",
            settings.driver.connect_wait,
            UserRules(settings.users.claims == "any", settings.users.apps, settings.driver.vip_range),
        )
        self._apps = Apps(of_apps)
        parts.callback(self._apps.close)
        self._holder.start(self._apps.hung_up, self._journal.read().apps)
        parts.push_async_callback(self._close_holder)
        self._restore()
        self._restored = True

        # Names; their port is in the tables, so the tables come next, and what serves apps last.
        await self._start_dns(parts, run_dir.path)
        self._writer.restore()
        try:
            self._writer.write()
        except Exhausted:
            pass  # logged; the sweep tries again
        self._ports.start()
        resetter = self._ground.make_resetter()
        parts.callback(resetter.close)
        local = frozenset(ip.packed for ip in registry.snapshot.local_ips)
        self._watcher = Watcher(
            registry,
            kernel,
            self._writer,
            log,
            self._ports.fill,
            lambda refused: resetter.answer(refused, local, time.monotonic()),
        )
        self._watcher.resync()
        asyncio.get_running_loop().add_reader(kernel.event_fd, self._watcher.read)
        parts.callback(asyncio.get_running_loop().remove_reader, kernel.event_fd)
        self._apps.resume()
        self.state = state = NodeState(
            settings.node.cluster,
            version(),
            registry,
            self._writer,
            self._journal,
            Attachments(of_apps, self._apps),
            log,
            kernel.counters,
            Bpf(kernel.statistics, self._writer.usage),
            self._problems,
        )
        parts.callback(state.close)
        rest = Rest(state, version(), run_dir.path / "api.sock", settings.rest_port, self._request_failed)
        await rest.start()
        parts.push_async_callback(rest.close)
        self._supervise("sweep", self._sweep, parts)
        self._supervise("counters", self._tidy_counters, parts)
        if settings.istio.target:
            state.istio = self._istio(state)
            self._supervise("istio", state.istio.run, parts)
        launch = LaunchServer(run_dir.path, self._apps, log)
        launch.start()
        parts.push_async_callback(launch.close)
        containers = OciListener(run_dir.path, self._apps, self._ground.networks, log)
        containers.start()
        parts.push_async_callback(containers.close)
        snapshot = registry.snapshot
        log(
            Event.STARTED,
            version=version(),
            node=snapshot.node,
            node_ip=snapshot.node_ip,
            run_dir=run_dir.path,
            rest_port=settings.rest_port,
            dns_port=snapshot.dns_port,
            apps=len(snapshot.apps),
        )

    # --- start

    async def _make_registry(self) -> Registry:
        """The node's names and addresses."""
        settings = self._settings
        found = await asyncio.to_thread(node.addresses, settings.node.interface)
        name = settings.node.name or socket.gethostname()
        return Registry(
            name,
            found.ip or next(iter(candidates(name, settings.driver.vip_range))),
            vip_range=settings.driver.vip_range,
            local_ips=found.local,
            rest_port=settings.rest_port,
            dns_ip=settings.driver.dns_ip if settings.dns.enabled else None,
            by_address=bool(settings.istio.target),
        )

    def _restore(self) -> None:
        """Apps that still live, users' vservices, Istio's last table; then the service table."""
        saved = self._journal.read()
        for line, reason in saved.broken:
            self._log(Event.JOURNAL_BROKEN, line=line, error=reason)
        apps = self._apps.adopt(saved.apps)
        vservices = []
        for vservice in saved.vservices:
            try:
                vservices.append(self._registry.create_vservice(vservice))
            except AppSwitchError as error:
                self._log(Event.JOURNAL_BROKEN, name=vservice.name, error=error)
        self._journal.start(tuple(apps), tuple(vservices))
        if self._settings.istio.target:
            try:
                self._registry.replace_istio(self._journal.read_istio())
            except InvalidInput as error:
                self._log(Event.JOURNAL_BROKEN, error=error)
        else:
            self._journal.forget_istio()
        self._registry.resync(self._kernel.services())

    def _remove_cgroup(self, app: App) -> None:
        """Of an app that ended while no daemon lived; one that lives is left alone."""
        path = self._ground.cgroups.cgroup_root() / app.cgroup.lstrip("/")
        if app.attached:
            self._kernel.detach(path, anyones=True)  # it can be attached again
        elif not self._ground.cgroups.populated(path):
            self._ground.cgroups.remove(path)

    async def _start_dns(self, parts: AsyncExitStack, run_dir: Path) -> None:
        """The DNS server, on the port that it had before if that is free, and the apps' resolv.conf."""
        settings = self._settings.dns
        if not settings.enabled:
            return
        dns_ip = self._settings.driver.dns_ip
        dns = DnsServer(settings.domain, dns_ip, self._log, settings.servers)
        kept = run_dir / "dns_port"
        try:
            before = int(kept.read_text())
        except (OSError, ValueError):
            before = 0
        port = await dns.start(before)
        parts.push_async_callback(dns.close)
        self._save(kept, str(port))
        try:
            host = parse_resolv_conf(HOST_RESOLV.read_text(errors="replace"))
        except OSError:
            host = parse_resolv_conf("")
        self._save(run_dir / RESOLV_NAME, resolv_conf(dns_ip, settings.domain, host))
        self._registry.set_dns(dns_ip, port)
        self._naming = Naming(self._registry, dns, self._settings.driver.vip_range)
        parts.callback(self._naming.close)

    def _istio(self, state: NodeState) -> IstioLink:
        """The Istio agent, a process of its own."""
        settings, profile, snapshot = self._settings.istio, self._settings.profile, self._registry.snapshot
        return IstioLink(
            settings.options(snapshot.node_ip, snapshot.node, self._settings.dns.servers),
            state.apply_istio,
            state.keep_unsupported,
            self._log,
            (beside(profile.cpu, "istio"), beside(profile.memory, "istio")),
        )

    # --- while it runs

    def _published(self) -> None:
        """The registry may have changed."""
        if self._naming is not None:
            self._naming.changed()

    async def _sweep(self) -> None:
        """What no event tells."""
        while True:
            await asyncio.sleep(SWEEP)
            self._watcher.read()
            self._watcher.sweep()
            self._apps.sweep()
            self._journal.sweep()
            self._ports.sweep()
            self._writer.sweep(time.monotonic())

    async def _tidy_counters(self) -> None:
        """In a thread: a full table takes a fifth of a second."""
        while True:
            await asyncio.sleep(TIDY)
            await asyncio.to_thread(backends.tidy, self._kernel.counters, self._registry.snapshot)

    def _supervise(self, name: str, work: Callable[[], Awaitable[None]], parts: AsyncExitStack) -> None:
        """Run a part for as long as the daemon runs; one that fails is told of and begins again."""

        async def keep() -> None:
            while True:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001  a part's outer edge: the daemon goes on
                    self._log(Event.TASK_FAILED, task=name, error=repr(error))
                await asyncio.sleep(1)

        task = spawn(name, keep())
        parts.push_async_callback(stop, [task])

    def _enroll(self, pid: int) -> None:
        """A holder's cgroup, with our programs on it: the sockets that it makes belong there."""
        cgroup = self._ground.cgroups
        root = cgroup.cgroup_root()
        own = f"appswitch-holder-{self._cgroup_tag}"
        path = root / cgroup.of_process(pid).lstrip("/")
        if path.name != own:
            path = root / cgroup.of_process(os.getpid()).lstrip("/") / own
            path.mkdir(exist_ok=True)
        self._kernel.attach(path, 1, 0, IPv4Address(0), abi.APP_HOLDER)
        cgroup.move(pid, path)
        self._holder_cgroup = path

    def _problems(self) -> list[str]:
        """For GET /v1/health."""
        parts = (self._writer.full, self._ports.problem, self._holder.problem, self._journal.problem)
        return [text for text in parts if text]

    def _journal_failed(self, reason: str) -> None:
        if reason:
            self._log(Event.JOURNAL_FAILED, error=reason)
        else:
            self._log(Event.JOURNAL_RECOVERED)

    def _save(self, path: Path, text: str) -> None:
        """A small file of the run directory; a disk that refuses it is no reason to end."""
        try:
            _write_in_place(path, text)
        except OSError as error:
            self._log(Event.JOURNAL_FAILED, name=path.name, error=error.strerror)

    def _request_failed(self, request: str, error: BaseException) -> None:
        self._log(Event.REQUEST_FAILED, text=request, error=repr(error))

    # --- drain

    async def _close_holder(self) -> None:
        """It goes on as long as there are apps."""
        ends = self._nobody_left
        await self._holder.close(end=ends)
        if ends and self._holder_cgroup is not None:
            self._ground.cgroups.remove(self._holder_cgroup)

    def _close_kernel(self) -> None:
        """The pins stay as long as there are apps."""
        if self._nobody_left:
            self._kernel.remove()
        self._kernel.close()


def _failed(log: Log, context: dict[str, Any]) -> None:
    """An error in a callback, or in a task that nobody waits for."""
    log(
        Event.TASK_FAILED,
        task=str(context.get("task") or "loop"),
        error=repr(context.get("exception")),
        text=context.get("message"),
    )


def raise_limits() -> None:
    """Two descriptors an app (pidfd, notify descriptor): 1,024 would end at 500 apps."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_in_place(path: Path, text: str) -> None:
    """Running apps have this very file mounted: it is not replaced, only touched if it differs, and not
    emptied before its new text is on the disk.  Raises OSError."""
    try:
        if path.read_text() == text:
            return
    except OSError:
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        data = text.encode()
        if os.pwrite(descriptor, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, len(data))
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)
