"""The node under chaos: a supervised daemon, a small disk for its run directory, servers, and callers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e.node import ROOT
from e2e.sandbox import Process, wait_until
from e2e.servers import PROGRAMS, PYTHON, start_echo, start_nginx
from e2e.supervised import SupervisedNode

OWN = ["--new-netns=false"]
CALLER = str(Path(__file__).parent / "caller.py")
RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"
ISTIOD = "127.0.0.1:15010"
RECORDING = ROOT / "istio-samples" / "bookinfo" / "recording"
DISK = "1m"
"""Of the run directory."""


@dataclass(frozen=True)
class Outcome:
    """What one caller's calls came to."""

    name: str
    calls: int
    failed: list[str]
    longest: float
    at: float

    def line(self) -> str:
        """For people."""
        return (
            f"{self.name:32} {self.calls:7} calls {len(self.failed):3} failed, longest {self.longest:6.2f} s"
        )


class World:
    """Everything, started; `close` says what is left behind."""

    def __init__(self, base: Path, *, istio: bool = False) -> None:
        run_dir = base / "run"
        run_dir.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "chaos", run_dir], check=True)
        args = ["--ports", "40000-42999"]
        if istio:
            args += ["--istio", ISTIOD]
        try:
            self.node = SupervisedNode(base, *args, start=False)
        except BaseException:
            subprocess.run(["umount", "-l", run_dir], check=False)
            raise
        self.reserved = self._reserved()
        self.istiod: Process | None = None
        self.callers: dict[str, Process] = {}
        try:
            if istio:
                argv = [PYTHON, "-P", "-m", "appswitch.xds.replay_cli", str(RECORDING), "--port", "15010"]
                self.istiod = server = self.node.host_start(*argv)
                self.node.wait(lambda: "serving" in server.output(), "the replayed Istiod", 60)
            self.node.start_daemon(timeout=60)
            self._servers()
        except BaseException:
            print(self.node.log(), self.node.daemon and self.node.daemon.output(), file=sys.stderr)
            self.close()
            raise

    def _servers(self) -> None:
        node = self.node
        start_nginx(node, name="nginx", ip="1.1.1.1")
        start_nginx(node, *OWN, name="nginx", ip="1.1.1.2")
        start_echo(node, name="empty", ip="1.1.1.3")
        start_echo(node, *OWN, name="own", ip="1.1.1.4")
        for ip, mode in (("1.1.1.5", []), ("1.1.1.6", OWN)):
            node.start("--ip", ip, *mode, PYTHON, str(PROGRAMS / "udp.py"), "server", "7000")
            node.wait_service(ip, 7000)

    def start_callers(self) -> None:
        """Every kind of client in both networks, towards servers in both."""
        number = 0
        for network, mode in (("empty", []), ("own", OWN)):
            for kind, targets in (
                ("http", (("1.1.1.1", 80), ("1.1.1.2", 80))),
                ("tcp", (("1.1.1.3", 7000), ("1.1.1.4", 7000))),
                ("asyncio", (("1.1.1.3", 7000), ("1.1.1.4", 7000))),
                ("udp", (("1.1.1.5", 7000), ("1.1.1.6", 7000))),
            ):
                ip, port = targets[number % 2]
                number += 1
                command = [PYTHON, CALLER, kind, ip, str(port)]
                name = f"{kind} in {network} to {ip}"
                self.callers[name] = self.node.start("--ip", f"2.2.2.{number}", *mode, *command)
        # A launch may fail where the daemon is killed: these are over before anything is.
        for name, process in self.callers.items():
            wait_until(lambda process=process: process.output(), f"{name} is launched", 60)

    def outcomes(self) -> list[Outcome]:
        """Ends the callers; what they say."""
        for process in self.callers.values():
            process.popen.send_signal(signal.SIGTERM)
        found = []
        for name, process in self.callers.items():
            code = process.wait(40)
            text = process.output().strip().rpartition("\n")[2]
            assert code == 0 and text.startswith("{"), f"{name}: exit {code}\n{process.output()}"
            said = json.loads(text)
            found.append(Outcome(name, said["calls"], said["failed"], said["longest"], said["at"]))
        self.callers.clear()
        return found

    def ended(self) -> str:
        """Callers that are there no more, and what they said."""
        gone = {name: process for name, process in self.callers.items() if process.popen.poll() is not None}
        lines = (
            f"{name}: exit {process.popen.returncode}\n{process.output()[-2000:]}"
            for name, process in gone.items()
        )
        return "\n".join(lines)

    def agent_pid(self) -> int:
        """The Istio agent's process id, or 0."""
        for pid in self.node.sandbox.pids("daemon"):
            try:
                if b"appswitch.agent.istio_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except OSError:
                continue
        return 0

    def processes(self) -> str:
        """Every process of the sandbox, one a line: cgroup, id, command."""
        lines = []
        for pid in self.node.sandbox.pids():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                lines.append(f"{Path(f'/proc/{pid}/cgroup').read_text().strip()} {pid} {command[:150]}")
            except OSError:
                continue
        return "\n".join(sorted(lines))

    def descriptors(self) -> dict[str, int]:
        """Open descriptors of daemon and holder."""
        pids = {"daemon": self.node.daemon_pid(), "holder": self.node.holder_pid()}
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items() if pid}

    def _reserved(self) -> str:
        return self.node.sandbox.run(["cat", RESERVED]).ok()

    def close(self) -> list[str]:
        """Ends everything; what was left behind."""
        leaks, node = [], self.node
        try:
            if node.daemon is not None and node.daemon.popen.poll() is None:
                node.wait(node.answers, "a daemon that tidies up", 60)
            node.stop_apps()
            if node.daemon is not None:
                if node.daemon.popen.poll() is None and (code := node.stop_daemon()):
                    leaks.append(f"the daemon exited with {code}: {node.log()[-2000:]}")
                stored = node.daemon.output().strip().rpartition("\n")[2]
                leaks += [stored] if stored != "stored at the end:" else []
            if (reserved := self._reserved()) != self.reserved:
                leaks.append(f"{RESERVED}: {reserved!r}, was {self.reserved!r}")
        finally:
            # Apps' own mounts of it went with their namespaces.
            busy = subprocess.run(["umount", node.run_dir], check=False).returncode
            try:
                leaks += node.close()
            finally:
                if busy:
                    subprocess.run(["umount", "-l", node.run_dir], check=True)
        return leaks
