"""A pod under test: a network namespace with an address of its own on the sandbox's bridge, and a cgroup.

Nothing of AppSwitch in it: what a container runtime would make.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .sandbox import Process, Result, Sandbox, wait_until

_INIT = "ip link set lo up && echo ready && exec sleep infinity"


class Pod:
    """Its first process holds the namespace, as a pause container does; `close` ends all of it."""

    def __init__(self, sandbox: Sandbox, name: str, ip: str, cgroup: str = "") -> None:
        self.sandbox = sandbox
        self.name = name
        self.ip = ip
        self.cgroup_name = cgroup or f"pod-{name}"
        self._processes: list[Process] = []
        self.init = sandbox.start(["unshare", "--net", "sh", "-c", _INIT], cgroup=self.cgroup_name)
        wait_until(lambda: "ready" in self.init.output(), "the pod's namespace is made")
        host = f"v{name}"
        peer = ["type", "veth", "peer", "name", "eth0", "netns", str(self.init.pid)]
        self._ip("link", "add", host, *peer)
        self._ip("link", "set", host, "master", "br0", "up")
        self.run("ip", "addr", "add", f"{ip}/24", "dev", "eth0").ok()
        self.run("ip", "link", "set", "eth0", "up").ok()

    @property
    def cgroup(self) -> Path:
        """Its directory."""
        return self.sandbox.cgroup / self.cgroup_name

    def run(self, *argv: str, timeout: float = 20.0) -> Result:
        """A program of the pod's to its end."""
        return self.sandbox.run(self._inside(argv), cgroup=self.cgroup_name, timeout=timeout)

    def start(self, *argv: str, stdin: int = subprocess.DEVNULL) -> Process:
        """A program of the pod's in the background; it ends with the pod."""
        process = self.sandbox.start(self._inside(argv), cgroup=self.cgroup_name, stdin=stdin)
        self._processes.append(process)
        return process

    def python(self, code: str, timeout: float = 20.0) -> Result:
        """Python code in the pod."""
        return self.run("python3", "-c", code, timeout=timeout)

    def serve(self, code: str) -> Process:
        """Starts Python code in the pod, and waits until it has printed a line."""
        process = self.start("python3", "-u", "-c", code)
        wait_until(lambda: "\n" in process.output() or process.popen.poll() is not None, "the server is up")
        assert process.popen.poll() is None, process.output()
        return process

    def close(self) -> None:
        """Every process of it."""
        if self.cgroup.exists():
            (self.cgroup / "cgroup.kill").write_text("1")
        wait_until(lambda: not self.sandbox.pids(self.cgroup_name), "the pod ends")
        for process in (*self._processes, self.init):
            process.wait()
            if process.popen.stdin:
                process.popen.stdin.close()

    def _ip(self, *words: str) -> None:
        self.sandbox.run(["ip", *words], cgroup="host").ok()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.init.pid}/ns/net", "--", *argv]
