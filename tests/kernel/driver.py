"""The kernel driver without a daemon: apps are cgroups, the registry and the planner are real."""

from __future__ import annotations

import time
import uuid
from ipaddress import IPv4Address
from pathlib import Path

from e2e.sandbox import Process, Result, Sandbox, wait_until

from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.interceptor.events import Event, ListenerDown, ListenerUp
from appswitch.interceptor.kernel import BPFFS, Kernel
from appswitch.model import App, Class, Labels

NODE_IP = IPv4Address("10.0.2.15")


class Driver:
    """One Kernel and the apps in it; `close` leaves nothing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pins = BPFFS / f"test-{uuid.uuid4().hex[:8]}"
        self.kernel = Kernel.open(self.pins, clean=True)
        self.kernel.add_ports(range(40000, 40200))
        self.kernel.set_local_addresses([NODE_IP])
        self.registry = Registry(node="host0", node_ip=NODE_IP, local_ips=frozenset({NODE_IP}))
        self.planner = Planner(self.registry)
        self.seen: list[Event] = []
        self._servers: list[Process] = []

    def app(self, ip: str, labels: str = "zone=default") -> str:
        """A new app; returns the name of its cgroup in the sandbox."""
        number = len(self.registry.snapshot.apps) + 1
        pairs = frozenset(
            (key, value) for key, _, value in (pair.partition("=") for pair in labels.split(","))
        )
        app = App(number, f"uid-{number}", Class(Labels(pairs)), IPv4Address(ip), new_netns=False)
        app = self.registry.add_app(app)
        name = f"app-{number}"
        cgroup: Path = self.sandbox.cgroup / name
        cgroup.mkdir()
        index = self.registry.class_index(app.app_class)
        self.kernel.attach(cgroup, number, index, app.ip, 0)
        self.write()
        return name

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

    def serve(self, app: str, code: str) -> Process:
        """Starts Python code as the app, and waits until it has printed a line."""
        process = self.sandbox.start(["python3", "-u", "-c", code], cgroup=app)
        self._servers.append(process)
        wait_until(lambda: "\n" in process.output() or process.popen.poll() is not None, "the server is up")
        assert process.popen.poll() is None, process.output()
        return process

    def close(self) -> None:
        """Ends the servers; nothing stays pinned."""
        for server in self._servers:
            server.stop()
        self.kernel.close()
        self.kernel.remove()
        assert not self.pins.exists()
