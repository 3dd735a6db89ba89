"""An `Apps` with everything below it in memory, for the tests of what makes and ends apps."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address
from pathlib import Path

from fakes import FakeLog, FakeMachine

from appswitch.agent.journal import Journal
from appswitch.agent.lifecycle import Apps, Parts
from appswitch.agent.registry import Registry
from appswitch.agent.writer import Writer


class Bench:
    """An `Apps` with everything below it."""

    def __init__(self, folder: Path) -> None:
        self.machine = FakeMachine(folder / "machine")
        self.log = FakeLog()
        self.registry = Registry("n", IPv4Address("10.0.0.1"), local_ips=frozenset([IPv4Address("10.0.0.1")]))
        self.journal = Journal(folder, lambda reason: None)
        self.journal.start((), ())
        self.freed: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def apps(self) -> Apps:
        """Within a running loop."""
        kernel = self.machine.kernel
        writer = Writer(self.registry, kernel, self.log, lambda: None)
        self.parts = Parts(
            self.registry,
            writer,
            kernel,
            self.machine.cgroups,
            self.machine.networks,
            self.journal,
            self.machine.holder,
            self.freed.extend,
            lambda port: port == 40000,
            self.log,
            lambda: None,
            "/run/resolv.conf",
        )
        return Apps(self.parts)

    def process(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def close(self) -> None:
        for process in self.processes:
            self.end(process)
        self.journal.close()
        self.machine.kernel.dispose()
