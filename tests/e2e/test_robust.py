"""Nonsense on every socket, apps that die while they start, full pools: one log line each, and it goes on."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo

NONSENSE = [
    b"",
    b"\0",
    b"{",
    b"[]",
    b'{"version": 99}',
    b'{"version": 1, "command": []}',
    b'{"version": 1, "command": ["true"], "ip": 7}',
    b"\xff" * 4096,
    b'{"version": 1, "labels": "' + b"a=b," * 20000 + b'"}',
]


@pytest.mark.parametrize("message", NONSENSE, ids=range(len(NONSENSE)))
def test_malformed_hello(node: Node, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(str(node.run_dir / "daemon.sock"))
        sock.send(message)
        answer = sock.recv(65536)
    assert answer == b"" or answer.startswith(b"error\n"), answer
    assert node.run("true").code == 0


def test_malformed_rest(node: Node) -> None:
    for request in (
        b"\r\n\r\n",
        b"GET /v1/apps HTTP/9.9\r\n\r\n",
        b"POST /v1/vservices HTTP/1.1\r\n" + b"x" * 9000,
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(node.run_dir / "api.sock"))
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)
    assert node.get("health")["status"] == "ok"


def test_rest_over_tcp_is_read_only(node: Node) -> None:
    url = "http://127.0.0.1:6664/v1/vservices"
    assert json.loads(node.host("curl", "-sS", url).ok()) == []
    answer = node.host("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-d", "{}", url)
    assert answer.out in ("403", "405")
    assert node.run("curl", "-sS", "--max-time", "3", url).code != 0


def test_apps_that_die_while_they_start(node: Node, mode: list[str]) -> None:
    """kill -9 at any moment of a launch leaves no app behind."""
    for _ in range(15):
        process = node.start(*mode, "sleep", "100")
        process.popen.send_signal(signal.SIGKILL)
    node.stop_apps()
    assert node.get("apps") == []
    assert node.run(*mode, "true").code == 0


def test_no_pool_port_left(own_node: Node) -> None:
    """The bind() too many fails with EADDRINUSE; others go on; the daemon says so, once."""
    node, ip = own_node, own_node.fresh_ip()
    node.stop_daemon()
    node.start_daemon("--ports", "40000-40009", "--clean")
    start_echo(node, "--new-netns=false", name="before", ip=ip)
    script = """
import socket
socks = []
try:
    for port in range(20):
        s = socket.socket(); s.bind(("0.0.0.0", 1000 + port)); s.listen(); socks.append(s)
except OSError as error:
    print(len(socks), error.errno)
"""
    assert node.run("--new-netns=false", PYTHON, "-c", script).ok() == "9 98\n"
    out = node.run("--new-netns=false", PYTHON, str(PROGRAMS / "dial.py"), "one", ip, "7000").ok()
    assert json.loads(out)["name"] == "before"
    node.wait(lambda: node.events("pool.empty"), "the event")


def test_nothing_is_attached_elsewhere(node: Node, mode: list[str]) -> None:
    """Programs are on apps' cgroups (and the holder's) only: never on the root, the host's, the daemon's."""
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool here")
    ip = node.fresh_ip()
    start_echo(node, *mode, name="app", ip=ip)
    attached = node.sandbox.run(["bpftool", "cgroup", "tree", str(node.sandbox.cgroup)])
    holders = {line for line in attached.out.splitlines() if line.startswith("/")}
    assert holders and all("/ax-" in line or "/appswitch-holder" in line for line in holders), holders
    root = node.sandbox.run(["bpftool", "cgroup", "show", str(Path(node.sandbox.cgroup).parent)])
    assert "ax_" not in root.out
