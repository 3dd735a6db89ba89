"""A holder of one test's own: namespace without a route out, stand-in sk_storage map, filtered programs."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from appswitch.errors import Unavailable
from appswitch.interceptor import abi
from appswitch.interceptor.cgroup import cgroup_root
from appswitch.interceptor.holder_client import HolderClient, Holding
from appswitch.interceptor.libbpf import Map, library

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "tests" / "seccomp_app.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
_PIDFD_GETFD = 438
_IN_NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']


MANY = (
    "import socket\nfor i in range({count}):\n with socket.socket() as s: assert s.fileno() > 2\nprint('ok')"
)
"""A program that makes sockets, one after the other."""


def storage(pin: Path) -> Map:
    """A pinned sk_storage map with values of our size; such maps insist on BTF for key and value."""
    names = b"\0int\0byte\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)  # 1: int, signed, 32 bits
    types += struct.pack("=IIII", 5, 1 << 24, 1, 8)  # 2: byte
    types += struct.pack("=IIIIII", 0, 3 << 24, 0, 2, 1, abi.SOCK_SIZE)  # 3: byte[SOCK_SIZE]
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    lib = library()
    blob = header + types + names
    btf = lib.bpf_btf_load(blob, ctypes.c_size_t(len(blob)), None)
    assert btf >= 0, os.strerror(-btf)
    options = struct.pack("@QIIIIIIQII", 48, btf, 1, 3, 0, 0, 1, 0, 0, 0)  # map_flags: NO_PREALLOC
    fd = lib.bpf_map_create(24, b"standin", 4, abi.SOCK_SIZE, 0, options)
    os.close(btf)
    assert fd >= 0, os.strerror(-fd)
    assert lib.bpf_obj_pin(fd, os.fsencode(pin)) == 0
    return Map(fd, "standin", 4, abi.SOCK_SIZE)


class Node:
    """The holder and what a daemon would hold for it."""

    def __init__(self, run_dir: Path, pin: Path, sockets: Map) -> None:
        self.run_dir = run_dir
        self.pin = pin
        self.sockets = sockets
        self.processes: list[subprocess.Popen[str]] = []
        self.holder = self.start()

    def start(self, *prefix: str) -> subprocess.Popen[str]:
        """A holder that answers.  The node's namespace outlives the holder: later ones join it."""
        if not hasattr(self, "namespace"):
            self.namespace = subprocess.Popen([*_IN_NAMESPACE, "sleep", "600"])
            time.sleep(0.1)
        command = [
            sys.executable,
            "-P",
            "-m",
            "appswitch.interceptor.inject",
            str(self.run_dir),
            str(self.pin),
        ]
        inside = ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net", *prefix]
        with (self.run_dir / "log").open("ab") as log:
            holder = subprocess.Popen([*inside, *command], env=ENVIRONMENT, stderr=log, text=True)
        deadline = time.monotonic() + 10
        while True:
            try:
                HolderClient.connect(self.run_dir).close()
                return holder
            except Unavailable:
                assert holder.poll() is None, (self.run_dir / "log").read_text()
                assert time.monotonic() < deadline, "the holder does not answer"
                time.sleep(0.01)

    def client(self) -> HolderClient:
        """A connection."""
        return HolderClient.connect(self.run_dir, timeout=5)

    def replace(self, holding: Holding) -> int:
        """kill -9, a successor, and what a daemon does for it; the calls that were adopted."""
        self.holder.kill()
        self.holder.wait(5)
        self.holder = self.start()
        with self.client() as client:
            for app in holding.apps:
                client.add(app.id, app.class_index, app.ip, app.fd)
            return client.adopt(holding.flight)

    def filtered(
        self, *command: str, prefix: tuple[str, ...] = ()
    ) -> tuple[subprocess.Popen[str], int, socket.socket]:
        """A program that waits to be let go (send b"g"), and its notify descriptor."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                ["unshare", "-n", *prefix, sys.executable, str(FILTER), str(theirs.fileno()), *command],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.processes.append(process)
        ours.settimeout(10)
        _, descriptors, _, _ = socket.recv_fds(ours, 100, 1, socket.MSG_CMSG_CLOEXEC)
        return process, descriptors[0], ours

    @contextlib.contextmanager
    def cgroup(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """A cgroup of the process's own; its path as the kernel names it."""
        path = cgroup_root() / f"ax-inject-{os.getpid()}-{time.monotonic_ns()}"
        path.mkdir()
        try:
            (path / "cgroup.procs").write_text(str(process.pid))
            yield f"/{path.name}"
        finally:
            process.kill()
            process.wait()
            path.rmdir()

    def app(self, app_id: int, code: str, *, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """A Python program under the filter, in the holder's care, running."""
        process, notify, channel = self.filtered(sys.executable, "-S", "-c", code, prefix=prefix)
        with channel, self.client() as client:
            client.add(app_id, app_id & 0xFF, IPv4Address(0x01010100 + (app_id & 0xFF)), notify)
            channel.send(b"g")
        os.close(notify)
        return process

    def owner(self, process: subprocess.Popen[str], fd: int) -> tuple[int, int, bytes, int]:
        """What the program's socket carries: id, class, ip, flags."""
        with pidfd(process.pid) as handle:
            libc = ctypes.CDLL(None, use_errno=True)
            copy = libc.syscall(ctypes.c_long(_PIDFD_GETFD), handle, fd, 0)
        assert copy >= 0, os.strerror(ctypes.get_errno())
        value = self.sockets.get(struct.pack("=i", copy))
        os.close(copy)
        assert value is not None, "the socket carries nothing"
        return abi.APP.unpack_from(value)

    def events(self, name: str) -> list[dict[str, object]]:
        """The holder's events of that name so far."""
        lines = (self.run_dir / "log").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def open_files(self) -> int:
        """How many descriptors the holder has."""
        return len(os.listdir(f"/proc/{self.holder.pid}/fd"))

    def close(self) -> None:
        """Ends all that was started."""
        everything: list[subprocess.Popen[Any]] = [*self.processes, self.holder, self.namespace]
        for process in everything:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(5)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int]:
    """A descriptor of a process."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """A running holder with everything around it; nothing is left behind."""
    pin = Path(f"/sys/fs/bpf/ax-inject-{os.getpid()}-{time.monotonic_ns()}")
    if not os.path.ismount("/sys/fs/bpf"):
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    sockets = storage(pin)
    run_dir = Path(tempfile.mkdtemp(prefix="ax-inject-"))
    made: Node | None = None
    try:
        made = Node(run_dir, pin, sockets)
        yield made
    finally:
        if made is not None:
            made.close()
        os.close(sockets.fd)
        pin.unlink()
        shutil.rmtree(run_dir)


def done(process: subprocess.Popen[str], timeout: float = 20) -> str:
    """Its output; it must have ended well."""
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"status {process.returncode}: {out}"
    return out


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM; the exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(5)
