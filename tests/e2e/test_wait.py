"""Connect-wait with real programs: started first, served when the server comes up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.interceptor import abi
from appswitch.interceptor.libbpf import Map, obj_get
from e2e.node import AX, ROOT, Node
from e2e.sandbox import Process
from e2e.servers import PROGRAMS, PYTHON, start_nginx

CLIENT_IP = "2.2.2.2"
WAIT = ["--connect-wait", "60s"]
PAGE = ROOT / "docs" / "connect-wait.md"
BLOCKING = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(s.getpeername()[0], s.recv(99).decode().split()[1])
"""
ASYNCIO = """
import asyncio, sys
async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(writer.get_extra_info("peername")[0], (await reader.read(99)).decode().split()[1])
asyncio.run(main())
"""


def late(node: Node, *args: str, command: str) -> Process:
    """An app that is there, and runs `command` as soon as it is sent a line."""
    known = len(node.get("apps"))
    process = node.start(*args, "sh", "-c", f"read line; exec {command}", stdin=subprocess.PIPE)
    node.wait(lambda: len(node.get("apps")) > known, "the app is known")
    return process


def waits(node: Node) -> int:
    """How many connections the kernel knows to wait."""
    pin = node.pins()[0] / "waits"
    descriptor = obj_get(pin)
    try:
        return len(list(Map(descriptor, "waits", abi.WAIT_KEY.size, abi.WAIT.size).keys()))
    finally:
        os.close(descriptor)


def waiting(node: Node, count: int) -> None:
    node.wait(lambda: waits(node) == count, f"{count} wait", 30)


def finished(process: Process, code: int = 0) -> str:
    assert process.wait(30) == code, process.output()
    return process.output()


@pytest.mark.timeout(300)
def test_programs(node: Node, mode: list[str], go_web: Path) -> None:
    """curl, blocking, asyncio, Go, node, nginx as a proxy, redis-cli: all before the servers."""
    ip, front = node.fresh_ip(), node.fresh_ip()
    url = f"http://{ip}:8000/"
    web = late(node, "--ip", ip, *mode, command=f"{PYTHON} -m http.server 8000 --directory {PROGRAMS}")
    redis = late(node, "--ip", ip, *mode, command='redis-server --port 6379 --protected-mode no --save ""')
    start_nginx(node, *mode, *WAIT, name="front", ip=front, proxy_to=f"{ip}:8000")

    def client(*argv: str) -> Process:
        return node.start("--ip", CLIENT_IP, *mode, *WAIT, *argv)

    curl = client("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", url)
    blocking, asynchronous = (client(PYTHON, "-c", code, ip, "8000") for code in (BLOCKING, ASYNCIO))
    go = client(str(go_web), "get", url)
    javascript = client("node", str(PROGRAMS / "web.js"), "get", url)  # ten at once
    cli = client("redis-cli", "-h", ip, "ping")
    proxied = node.start(*mode, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{front}/")
    clients = [curl, blocking, asynchronous, go, javascript, cli, proxied]
    waiting(node, 16)
    time.sleep(1)  # SYNs are refused all the while, and nobody hears of it
    assert [c.output() for c in clients if c.popen.poll() is not None] == []
    web.send("go")
    redis.send("go")
    assert finished(curl) == f"200 {ip}"
    assert finished(blocking) == finished(asynchronous) == f"{ip} 200\n"
    assert "<title>" in finished(go) and "<title>" in finished(javascript)
    assert finished(cli) == "PONG\n" and finished(proxied) == "200"
    node.stop_apps()
    assert not waits(node)


def test_the_deadline_and_policy(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    late(node, "--ip", ip, "--labels", "role=prod", *mode, command="true")
    flags = ["--labels", "role=prod", *mode, "--connect-wait=1200ms"]
    begin = time.monotonic()
    curl = node.start(*flags, "curl", "-sS", f"http://{ip}/")
    script = node.start(*flags, PYTHON, "-c", ASYNCIO, ip, "80")
    assert "Failed to connect" in finished(curl, 7)
    assert time.monotonic() - begin > 1.2
    assert "ConnectionRefusedError: [Errno 111]" in finished(script, 1)
    denied = node.run(*mode, *WAIT, PYTHON, "-c", BLOCKING, ip, "80", timeout=10)
    assert "PermissionError" in denied.err
    hasty = node.run("--labels", "role=prod", *mode, "curl", "-sS", f"http://{ip}/", timeout=10)
    assert hasty.code == 7 and not waits(node)


def test_explained(node: Node) -> None:
    ip = node.fresh_ip()
    late(node, "--ip", ip, command="true")
    late(node, "--name", "patient", "--connect-wait", "2m", command="true")
    out = node.ax("explain", "--from", "patient", ip).ok()
    assert out.splitlines()[1] == "verdict: waits 120 s at most for a listener, then ECONNREFUSED"
    assert node.run("--connect-wait", "1h", "true").err.startswith("ax run: --connect-wait '1h' is no time")


@pytest.fixture
def patient_node() -> Iterator[Node]:
    """A daemon whose apps wait unless they say otherwise."""
    with tempfile.TemporaryDirectory(prefix="axt-") as folder:
        Path(folder).chmod(0o755)
        node = Node(Path(folder), *WAIT)
        yield node
        leaks = node.close()
    assert not leaks, leaks


AGAIN = """
import socket, sys
for port in (8000, 8001):
    with socket.create_connection((sys.argv[1], port)) as s:
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print(port, s.recv(99).decode().split()[1], flush=True)
"""


def test_nobody_of_ours_lives(patient_node: Node) -> None:
    """Daemon and holder are killed while apps wait: they go on.  The next daemon has them wait as ever."""
    node, own = patient_node, "--new-netns=false"
    serve = f"{PYTHON} -m http.server --directory {PROGRAMS}"
    first = late(node, "--ip", "1.1.1.1", own, command=f"{serve} 8000")
    second = late(node, "--ip", "1.1.1.1", own, command=f"{serve} 8001")
    inside = node.start("--ip", CLIENT_IP, PYTHON, "-c", BLOCKING, "1.1.1.1", "8000")
    outside = node.start("--ip", CLIENT_IP, own, PYTHON, "-u", "-c", AGAIN, "1.1.1.1")
    hasty = node.run(own, "--connect-wait=0", "curl", "-sS", "http://1.1.1.1:8000/", timeout=10)
    assert hasty.code == 7
    waiting(node, 2)
    holder = node.holder_pid()
    assert holder and node.daemon
    node.stop_daemon(signal.SIGKILL)
    os.kill(holder, signal.SIGKILL)
    first.send("go")
    assert finished(inside) == "1.1.1.1 200\n"
    node.wait(lambda: "8000 200" in outside.output(), "the other one is served")
    node.start_daemon()
    waiting(node, 1)
    second.send("go")
    assert finished(outside) == "8000 200\n8001 200\n"


def test_the_pages_example(node: Node, tmp_path: Path) -> None:
    """docs/connect-wait.md, typed: the server is started first and is ready late."""
    [block] = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    background, command, answer = block.splitlines()
    env = {"AX_RUN_DIR": str(node.run_dir), "PATH": f"{Path(AX).parent}:{os.environ['PATH']}"}
    node.start_shell(background.removeprefix("$ ").removesuffix(" &"), env, tmp_path)
    node.wait(lambda: node.get("apps"), "the first command has begun")
    begin = time.monotonic()
    assert node.shell(command.removeprefix("$ "), env, tmp_path).ok() == f"{answer}\n"
    assert time.monotonic() - begin > 1
