"""kill -9 of any process of ours, or all: the apps go on, and the next daemon knows them all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.sandbox import Process, wait_until
from e2e.servers import PROGRAMS, PYTHON, start_echo

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]
TABLES = ("apps", "servers", "vservices", "sockets")


def tables(node: Node) -> dict[str, str]:
    """What `ax get` prints, table by table."""
    return {table: node.ax("get", table).ok() for table in TABLES}


def dials_go_on(client: Process, timeout: float = 10) -> None:
    """Waits for 20 more successful dials of `dial.py loop`, without a failure among them."""
    begin = len(client.output().splitlines())

    def enough() -> bool:
        new = client.output().splitlines()[begin:]
        assert all(line.startswith("ok") for line in new), new
        return len(new) >= 20

    client_alive = client.popen.poll() is None
    assert client_alive, client.output()
    wait_until(enough, "20 more connections", timeout)


@pytest.mark.parametrize("victims", ["daemon", "holder", "all"])
def test_killed(own_node: Node, mode: list[str], victims: str) -> None:
    """Dials, an old connection and a new server go on; the next daemon shows the same tables.

    With daemon *and* holder dead at once nobody can inject sockets into namespaces that exist: there the
    apps live on with those they have (so the client is of the other kind, the server made its socket before).
    """
    node, ip = own_node, own_node.fresh_ip()
    client_mode = mode if victims != "all" else ["--new-netns=false"]
    start_echo(node, *mode, name="lives", ip=ip)
    node.ax("create", "vservice", "--ip", "8.8.4.4", "--backends", ip, "--ports", "80:7000", "vs").ok()
    client = node.start("--ip", "2.2.2.2", *client_mode, *DIAL, "loop", ip, "7000")
    late = node.start("--ip", "2.2.2.4", *client_mode, *DIAL, "loop", "3.3.3.3", "80")
    held = node.start("--ip", "2.2.2.3", *mode, *DIAL, "hold", ip, "7000", stdin=subprocess.PIPE)
    server = node.start("--ip", "3.3.3.3", *mode, PYTHON, "-i", "-c", "import socket", stdin=subprocess.PIPE)
    server.send("s = socket.socket()")
    server.send("print('made', s)")
    dials_go_on(client)
    node.wait(lambda: "lives" in held.output(), "the long connection")
    node.wait(lambda: "made <" in server.output(), "the server's socket")
    node.wait(lambda: "errno 111" in late.output(), "nobody listens yet")
    before = tables(node)
    assert node.daemon is not None

    if victims in ("daemon", "all"):
        node.daemon.popen.kill()
        node.daemon.wait()
    holder = node.holder_pid()
    if victims in ("holder", "all") and holder is not None:
        os.kill(holder, signal.SIGKILL)
        node.wait(lambda: not Path(f"/proc/{holder}").exists(), "the holder is dead")

    dials_go_on(client)
    held.send("still here")
    node.wait(lambda: "still here" in held.output(), "the long connection lives on")
    if victims == "holder":
        server.send("s = socket.socket()")  # injected by the next holder
    server.send("s.bind(('', 80)); s.listen()")
    server.send('while True: c = s.accept()[0]; c.send(b\'{"name": "new"}\\n\'); c.close()\n')
    node.wait(lambda: "ok new" in late.output(), "the new server is reached")

    if node.daemon.popen.poll() is not None:
        node.start_daemon()
    dials_go_on(client)
    node.wait_service("3.3.3.3", 80)
    server.stop(signal.SIGKILL)
    node.wait(lambda: "3.3.3.3" not in str(node.get("apps")), "the new server's end is seen")
    after = tables(node)
    assert after == {name: without(text, "3.3.3.3") for name, text in before.items()}
    out = node.run(*mode, *DIAL, "one", "8.8.4.4", "80").ok()
    assert json.loads(out)["name"] == "lives"


def without(text: str, word: str) -> str:
    """The lines that do not have the word."""
    return "".join(line for line in text.splitlines(keepends=True) if word not in line)


def test_server_of_a_dead_daemon(own_node: Node, mode: list[str]) -> None:
    """Without any daemon, a running app binds, listens and is reached by a running client."""
    node = own_node
    server = node.start("--ip", "3.3.3.3", *mode, PYTHON, "-i", "-c", "import socket", stdin=subprocess.PIPE)
    client = node.start("--ip", "2.2.2.2", *mode, *DIAL, "loop", "3.3.3.3", "80")
    node.wait(lambda: "errno 111" in client.output(), "nobody listens yet")
    assert node.daemon is not None
    node.daemon.popen.kill()
    node.daemon.wait()
    server.send("s = socket.socket(); s.bind(('', 80)); s.listen()")
    server.send('while True: c = s.accept()[0]; c.send(b\'{"name": "late"}\\n\'); c.close()\n')
    node.wait(lambda: "ok late" in client.output(), "the new server is reached")
    node.start_daemon()
    node.wait_service("3.3.3.3", 80)


def test_terminated_daemon_leaves_apps_running(own_node: Node, mode: list[str]) -> None:
    node, ip = own_node, own_node.fresh_ip()
    start_echo(node, *mode, name="lives", ip=ip)
    client = node.start(*mode, *DIAL, "loop", ip, "7000")
    dials_go_on(client)
    before = tables(node)
    assert node.stop_daemon() == 0
    dials_go_on(client)
    node.start_daemon()
    dials_go_on(client)
    assert tables(node) == before


def test_clean(own_node: Node) -> None:
    """`--clean` starts from nothing."""
    node, ip = own_node, own_node.fresh_ip()
    node.ax("create", "vservice", "--ip", "8.8.4.4", "--backends", ip, "--ports", "80:7000", "vs").ok()
    node.stop_daemon(signal.SIGKILL)
    node.start_daemon()
    assert "vs" in node.ax("get", "vservices").ok()
    node.stop_daemon(signal.SIGKILL)
    node.start_daemon("--clean")
    assert node.get("vservices") == []


def test_second_daemon_is_refused(own_node: Node) -> None:
    """One line, exit status 73, the first goes on."""
    result = own_node.ax("daemon", "--run-dir", str(own_node.run_dir), "--rest-port", "6665", timeout=20)
    assert result.code == 73
    assert result.err.count("\n") == 1 and str(own_node.run_dir) in result.err
    assert own_node.get("health") is not None


def test_nothing_is_left(own_node: Node, mode: list[str]) -> None:
    """After the apps' end and the daemon's: no process, cgroup, pin, namespace, mount, socket file."""
    node = own_node
    start_echo(node, *mode, name="gone", ip="1.1.1.1")
    node.run(*mode, "curl", "-sS", "--max-time", "2", "1.1.1.1:7000")
    namespaces = set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()
    node.stop_apps()
    assert node.stop_daemon() == 0
    assert node.leaks() == []
    assert namespaces == (set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set())
    assert not [path for path in node.run_dir.iterdir() if path.is_socket()]
