"""The kernel driver without a daemon: apps are cgroups, the registry and the planner are real."""

from __future__ import annotations

import time
import uuid
from ipaddress import IPv4Address
from pathlib import Path

from e2e.pods import Pod
from e2e.sandbox import Process, Result, Sandbox, wait_until

from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.agent.waiters import wait_flags
from appswitch.interceptor import abi
from appswitch.interceptor.events import Event, ListenerDown, ListenerUp
from appswitch.interceptor.kernel import BPFFS, Kernel
from appswitch.interceptor.netns import Pod as PodEntry
from appswitch.model import App, Class, Labels

NODE_IP = IPv4Address("10.0.2.15")


class Driver:
    """One Kernel and the apps in it; `close` leaves nothing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pins = BPFFS / f"test-{uuid.uuid4().hex[:8]}"
        self.kernel = Kernel.open(self.pins, clean=True, network=sandbox.network)
        self.kernel.add_ports(range(40000, 40200))
        self.kernel.set_local_addresses([NODE_IP])
        self.registry = Registry(node="host0", node_ip=NODE_IP, local_ips=frozenset({NODE_IP}))
        self.planner = Planner(self.registry)
        self.seen: list[Event] = []
        self._servers: list[Process] = []
        self._pods: list[Pod] = []

    def app(self, ip: str, labels: str = "zone=default", wait: float = 0.0) -> str:
        """A new app, whose connect() waits for so many seconds; returns the name of its cgroup."""
        number = len(self.registry.snapshot.apps) + 1
        name = f"app-{number}"
        cgroup: Path = self.sandbox.cgroup / name
        cgroup.mkdir()
        if wait:
            self.kernel.waiting.start()
        app = App(number, "", _class(labels), IPv4Address(ip), new_netns=False, connect_wait=wait)
        self._add(app, cgroup, wait_flags(app))
        return name

    def pod(self, ip: str, labels: str = "zone=default", *, own: str = "", attach: bool = True) -> Pod:
        """A pod at `own` (default: `ip`), attached or not."""
        made = Pod(self.sandbox, str(len(self._pods) + 1), own or ip)
        self._pods.append(made)
        if attach:
            self.attach(made, ip, labels)
        return made

    def attach(self, pod: Pod, ip: str, labels: str = "zone=default", cgroup: Path | None = None) -> int:
        """The pod (or another cgroup in its network) becomes an app; returns its id."""
        number = len(self.registry.snapshot.apps) + 1
        own = IPv4Address(pod.ip)
        app = App(number, "", _class(labels), IPv4Address(ip), new_netns=False, attached=True, own_ip=own)
        self.kernel.set_pod(number, PodEntry(own, NODE_IP, number))
        self._add(app, cgroup or pod.cgroup, abi.APP_OWN_NETWORK)
        return number

    def _add(self, app: App, cgroup: Path, flags: int) -> None:
        self.registry.add_app(app)
        self.kernel.attach(cgroup, app.id, self.registry.class_index(app.app_class), app.ip, flags)
        self.write()

    def write(self) -> None:
        """The registry's tables, into the kernel."""
        self.kernel.apply(self.planner.plan(time.monotonic()))

    def follow(self) -> None:
        """What the programs told so far, into the registry and back into the tables."""
        events = self.kernel.read_events()
        self.seen += events
        for event in events:
            match event:
                case ListenerUp(service):
                    self.registry.listener_up(service)
                case ListenerDown(service):
                    self.registry.listener_down(service)
        self.write()

    def python(self, app: str, code: str, timeout: float = 20.0) -> Result:
        """Runs Python code as the app."""
        return self.sandbox.run(["python3", "-c", code], cgroup=app, timeout=timeout)

    def start(self, app: str, code: str) -> Process:
        """Starts Python code as the app, and waits until it has printed a line."""
        process = self.sandbox.start(["python3", "-u", "-c", code], cgroup=app)
        self._servers.append(process)
        wait_until(lambda: "\n" in process.output() or process.popen.poll() is not None, "the program is up")
        return process

    def serve(self, app: str, code: str) -> Process:
        """The same for one that goes on until it is stopped."""
        process = self.start(app, code)
        assert process.popen.poll() is None, process.output()
        return process

    def close(self) -> None:
        """Ends the servers; nothing stays pinned."""
        for pod in self._pods:
            pod.close()
        for server in self._servers:
            server.stop()
        self.kernel.close()
        self.kernel.remove()
        assert not self.pins.exists()


def _class(labels: str) -> Class:
    pairs = (pair.partition("=") for pair in labels.split(","))
    return Class(Labels(frozenset((key, value) for key, _, value in pairs)))
