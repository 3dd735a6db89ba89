"""A node under test: `ax daemon` in a sandbox, and `ax` used as a user would."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from .sandbox import Process, Result, Sandbox, wait_until

ROOT = Path(__file__).resolve().parents[2]
AX = os.environ.get("AX_BIN", str(ROOT / ".venv/bin/ax"))
"""The command under test."""
NODE_NAME = "host0"
PINS = Path("/sys/fs/bpf/appswitch")

_HOLDER_MODULE = b"appswitch.interceptor.inject"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, as `ax get` does it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def unix_http(path: Path) -> http.client.HTTPConnection:
    """A connection to the daemon's REST interface."""
    return _UnixConnection(path)


class Node:
    """One machine with (or, between start and stop, without) a daemon."""

    def __init__(self, base: Path, *daemon_args: str, start: bool = True) -> None:
        self.sandbox = Sandbox(base)
        self.base = base
        self.run_dir = base / "run"
        self.daemon_args = daemon_args
        self.daemon: Process | None = None
        self._ready = False
        self._ips = count(1)
        self._apps: list[Process] = []
        if start:
            try:
                self.start_daemon()
            except BaseException:
                self.sandbox.close()
                raise

    # --- the daemon

    def start_daemon(self, *args: str, timeout: float = 20.0) -> Process:
        """Starts `ax daemon` and waits until it answers."""
        argv = [AX, "daemon", "--run-dir", str(self.run_dir), "--node-name", NODE_NAME]
        daemon = self.sandbox.start([*argv, *self.daemon_args, *args], cgroup="daemon")
        self.daemon, self._ready = daemon, False

        def ready() -> bool:
            assert daemon.popen.poll() is None, f"the daemon ended: {daemon.output()}"
            try:
                return self.get("health") is not None
            except OSError:
                return False

        wait_until(ready, "the daemon answers", timeout)
        self._ready = True
        return daemon

    def stop_daemon(self, sig: int = signal.SIGTERM) -> int:
        """Ends the daemon; its exit status."""
        assert self.daemon is not None
        self._ready = False
        return self.daemon.stop(sig, 10)

    def holder_pid(self) -> int | None:
        """The process that injects sockets, or None."""
        for pid in self.sandbox.pids():
            try:
                if _HOLDER_MODULE in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except OSError:
                continue
        return None

    def pins(self) -> list[Path]:
        """Where the daemon of this run directory pins its maps: the name ends with the path's digest."""
        digest = hashlib.sha256(os.fsencode(self.run_dir.resolve())).hexdigest()[:8]
        return list(PINS.glob(f"*-{digest}"))

    def descriptors(self) -> dict[str, int]:
        """Open descriptors of the daemon and of the holder."""
        assert self.daemon is not None
        pids = {"daemon": self.daemon.pid, "holder": self.holder_pid()}
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items() if pid}

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The daemon's log, decoded; only the events of one name, if given."""
        assert self.daemon is not None
        found = []
        whole, _, _ = self.daemon.output().rpartition("\n")  # what follows is half a line yet
        for line in whole.splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                if not name or event.get("event") == name:
                    found.append(event)
        return found

    # --- ax

    def ax(self, *args: str, timeout: float = 30.0, env: Mapping[str, str] | None = None) -> Result:
        """`ax ARGS` to its end."""
        return self.sandbox.run([AX, *args], timeout=timeout, cgroup="apps", env=self._env(env))

    def run(
        self,
        *args: str,
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
    ) -> Result:
        """`ax run ARGS` to its end."""
        argv = [AX, "run", *args]
        return self.sandbox.run(
            argv, timeout=timeout, cgroup="apps", env=self._env(env), cwd=cwd, stdin=stdin
        )

    def start(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Process:
        """`ax run ARGS` in the background; `stop_apps` ends it."""
        argv = [AX, "run", *args]
        process = self.sandbox.start(argv, cgroup="apps", env=self._env(env), cwd=cwd, stdin=stdin)
        self._apps.append(process)
        return process

    def adopt(self, process: Process) -> Process:
        """`stop_apps` will end a process that was started in the sandbox."""
        self._apps.append(process)
        return process

    def host(self, *argv: str, timeout: float = 30.0) -> Result:
        """A program of the node's own, not under `ax run`."""
        return self.sandbox.run(argv, timeout=timeout, cgroup="host", env=self._env(None))

    def host_start(self, *argv: str) -> Process:
        """A program of the node's own in the background."""
        process = self.sandbox.start(argv, cgroup="host", env=self._env(None))
        self._apps.append(process)
        return process

    def shell(self, command: str, env: Mapping[str, str], cwd: Path) -> Result:
        """A command line as a user types it."""
        return self.sandbox.run(["sh", "-c", command], cgroup="apps", env=env, cwd=cwd)

    def start_shell(self, command: str, env: Mapping[str, str], cwd: Path) -> Process:
        """The same in the background: `COMMAND &`."""
        process = self.sandbox.start(["sh", "-c", f"exec {command}"], cgroup="apps", env=env, cwd=cwd)
        self._apps.append(process)
        return process

    def _env(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        return {"AX_RUN_DIR": str(self.run_dir), **(extra or {})}

    def get(self, path: str) -> Any:
        """The decoded body of `GET /v1/PATH`; OSError while no daemon answers."""
        connection = _UnixConnection(self.run_dir / "api.sock")
        try:
            connection.request("GET", f"/v1/{path}")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, f"GET /v1/{path}: {response.status} {body!r}"
            return json.loads(body)
        finally:
            connection.close()

    def fresh_ip(self) -> str:
        """A virtual address that no test before has used."""
        number = next(self._ips)
        return f"1.2.{number // 250}.{number % 250 + 1}"

    # --- waiting

    def wait_service(self, address: str, port: int, number: int = 1, timeout: float = 20.0) -> None:
        """Until `number` servers of ADDRESS:PORT are in the service table."""
        wanted = f"{address}:{port}"

        def there() -> bool:
            ended = [app for app in self._apps if app.popen.poll() not in (None, 0)]
            servers = self.servers()
            if sum(server["serviceaddr"] == wanted for server in servers) >= number:
                return True
            assert not ended, f"{ended[0].popen.args!r} ended: {ended[0].output()}"
            return False

        wait_until(there, f"{number} x {wanted} in the service table", timeout)

    def servers(self) -> list[dict[str, Any]]:
        """The rows of `ax get servers`."""
        rows: list[dict[str, Any]] = self.get("servers")
        return rows

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
        """See `wait_until`."""
        return wait_until(condition, what, timeout)

    # --- the end

    def stop_apps(self) -> None:
        """Ends everything started with `start` and `host_start`, and waits until the daemon has seen it."""
        for process in reversed(self._apps):
            process.stop()
            if process.popen.stdin:
                process.popen.stdin.close()
        self._apps.clear()
        for path in (self.sandbox.cgroup / "apps", self.sandbox.cgroup / "host"):
            if path.exists():
                (path / "cgroup.kill").write_text("1")
        wait_until(lambda: not self.sandbox.pids("apps") + self.sandbox.pids("host"), "the apps end")
        if self._ready and self.daemon is not None and self.daemon.popen.poll() is None:
            wait_until(lambda: not self.get("apps"), "the daemon forgets the ended apps")
            wait_until(lambda: not self.sandbox.cgroups("ax-*"), "the apps' cgroups go")

    def leaks(self) -> list[str]:
        """What of this node is still there: to be asked after `stop_apps` and `stop_daemon`."""
        found = [f"process {pid}: {_cmdline(pid)}" for pid in self.sandbox.pids()]
        found += [f"cgroup {path}" for path in self.sandbox.cgroups("a*-*")]
        found += [f"pin {path}" for path in self.pins()]
        found += [
            f"mount {line}"
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if str(self.base) in line
        ]
        return found

    def close(self) -> list[str]:
        """Ends everything; what had been left behind before force was used (best: nothing)."""
        leaks: list[str] = []
        try:
            self.stop_apps()
            if self.daemon is not None and self.daemon.popen.poll() is None:
                code = self.stop_daemon()
                leaks += [f"the daemon exited with {code}: {self.daemon.output()[-2000:]}"] if code else []
            leaks += self.leaks()
        finally:
            try:
                self.sandbox.close()
            finally:
                for pins in self.pins():
                    shutil.rmtree(pins)
        return leaks

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(gone)"
