"""A node whose daemon has a supervisor with an fd store, as under systemd."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from .node import AX, NODE_NAME, ROOT, Node
from .sandbox import Process, wait_until
from .servers import PYTHON


class SupervisedNode(Node):
    """The daemon is started again whenever it dies, and gets its descriptors back."""

    def start_daemon(self, *args: str, timeout: float = 20.0) -> Process:
        """Starts the supervisor and waits until the daemon answers."""
        argv = [AX, "daemon", "--run-dir", str(self.run_dir), "--node-name", NODE_NAME]
        argv += ["--log-file", str(self.base / "daemon.log")]
        store = [PYTHON, str(ROOT / "tests/fd_store.py"), str(self.base / "notify")]
        self.daemon = self.sandbox.start([*store, *argv, *self.daemon_args, *args], cgroup="daemon")
        wait_until(self.answers, "the daemon answers", timeout)
        self._ready = True
        return self.daemon

    def answers(self) -> bool:
        """Whether the daemon does."""
        assert self.daemon is not None
        assert self.daemon.popen.poll() is None, f"the supervisor ended: {self.daemon.output()}{self.log()}"
        try:
            return self.get("health") is not None
        except OSError:
            return False

    def daemon_pid(self) -> int:
        """The daemon's process id, or 0 between two of them."""
        assert self.daemon is not None
        try:
            children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def kill(self, *, daemon: bool = True, holder: bool = True) -> None:
        """kill -9 at the same moment: both are stopped first, so that neither sees the other's end."""
        victims = [pid for pid in (daemon and self.daemon_pid(), holder and self.holder_pid()) if pid]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def log(self) -> str:
        """What the daemons have logged."""
        path = self.base / "daemon.log"
        return path.read_text() if path.exists() else ""
