"""A machine for one test: a network namespace without a route out, and a cgroup of its own.

An address such as 1.1.1.1 that AppSwitch misses fails here (ENETUNREACH) and never leaves the machine.
`nsenter --net` is used and not `ip netns exec`: the latter mounts a fresh /sys, which hides cgroups and
bpffs.  The cgroup makes "is anything left?" a question about this sandbox alone, however many others run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

NODE_IP = "10.0.2.15"
"""The address of every sandbox, the manual's."""

SLOWNESS = float(os.environ.get("TEST_SLOWNESS", "1"))
"""What deadlines are multiplied with, on an emulated machine (tests/kernels)."""

_SETUP = f"""
ip link set lo up &&
ip link add br0 type bridge && ip addr add {NODE_IP}/24 dev br0 && ip link set br0 up &&
echo ready && cat; {{ echo 1 >"$0"; }} 2>/dev/null
"""
"""$0: the cgroup.kill of the sandbox.  When the test process dies, `cat` ends, and all goes with it."""


def wait_until(condition: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """The first true value of `condition`, asked every 10 ms; AssertionError at the deadline (seconds)."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.01)
    return value


def cgroup2_root() -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or .../unified on hybrid machines."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise AssertionError("no cgroup v2 is mounted")


@dataclass(frozen=True)
class Result:
    """What a finished command said."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """Its standard output; AssertionError with everything it said if it failed."""
        assert self.code == 0, f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self.out


class Process:
    """A command running in the background, its output in a file."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        """Of the program itself: every wrapper has replaced itself by exec."""
        return self.popen.pid

    def output(self) -> str:
        """All it has written so far to standard output and error."""
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit status (negative: the signal that killed it); AssertionError at the deadline."""
        try:
            return self.popen.wait(timeout * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.popen.args!r} still runs\n{self.output()}") from None

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 5.0) -> int:
        """Sends `sig`, and SIGKILL to its whole process group if it has not ended by the deadline."""
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
            try:
                self.popen.wait(timeout * SLOWNESS)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait(timeout * SLOWNESS)

    def send(self, line: str) -> None:
        """Writes one line to its standard input."""
        stdin: IO[bytes] | None = self.popen.stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")
        stdin.flush()


class Sandbox:
    """Namespace and cgroup; every process started through it is in both."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir(parents=True, exist_ok=True)
        self.cgroup = cgroup2_root() / f"sandbox-{os.getpid()}-{time.monotonic_ns():x}"
        self.cgroup.mkdir()
        self._count = 0
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _SETUP, str(self.cgroup / "cgroup.kill")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "cannot make a network namespace (root?)"

    @property
    def network(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self._holder.pid}/ns/net")

    def wrap(self, argv: Sequence[str], cgroup: str = "") -> list[str]:
        """`argv` as it has to be called to run in this sandbox (in a sub-cgroup, if one is named)."""
        directory = self.cgroup / cgroup
        directory.mkdir(exist_ok=True)
        enter = ["nsenter", f"--net={self.network}", "--"]
        join = 'echo 0 > "$0" && exec "$@"'
        return ["sh", "-c", join, str(directory / "cgroup.procs"), *enter, *argv]

    def start(
        self,
        argv: Sequence[str],
        *,
        cgroup: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Process:
        """Starts `argv` in the background, in a session of its own."""
        self._count += 1
        log = self.base / f"{self._count:03}-{Path(argv[0]).name}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                self.wrap(argv, cgroup),
                stdin=stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd or self.base,
                start_new_session=True,
            )
        return Process(popen, log)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        cgroup: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
    ) -> Result:
        """Runs `argv` to its end; AssertionError when it takes longer than `timeout` seconds."""
        with subprocess.Popen(
            self.wrap(argv, cgroup),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd or self.base,
            start_new_session=True,
        ) as popen:
            try:
                out, err = popen.communicate(stdin, timeout * SLOWNESS)
            except subprocess.TimeoutExpired:
                os.killpg(popen.pid, signal.SIGKILL)
                out, err = popen.communicate()
                raise AssertionError(f"{argv!r}: not done in {timeout:g} s\n{out}\n{err}") from None
            return Result(popen.returncode, out, err)

    def pids(self, cgroup: str = "") -> list[int]:
        """Every process in the sandbox, or in one cgroup of it, and below."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.cgroup / cgroup):
            try:
                found += [int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()]
            except OSError:  # the cgroup went while we walked
                continue
        return found

    def cgroups(self, pattern: str = "*") -> list[Path]:
        """The cgroups below the sandbox's that match."""
        found = []
        for folder, names, _ in os.walk(self.cgroup):
            found += [Path(folder) / name for name in names if fnmatch(name, pattern)]
        return sorted(found)

    def close(self) -> None:
        """Kills whatever is left and removes namespace and cgroup."""
        (self.cgroup / "cgroup.kill").write_text("1")
        wait_until(lambda: not self.pids(), "processes of the sandbox end")
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(5)
        for path in [*reversed(self.cgroups()), self.cgroup]:
            wait_until(partial(_rmdir, path), f"the cgroup {path} is empty")


def _rmdir(path: Path) -> bool:
    """Whether it is gone; EBUSY while a killed process is still on its way out."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
