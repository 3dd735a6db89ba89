"""Who is at the other end: a server must never see a name that is not the dialler's."""

from __future__ import annotations

import re

from appswitch.interceptor.libbpf import Map, obj_get
from e2e.node import Node
from e2e.sandbox import Process
from e2e.servers import PYTHON

SLOW = """
import socket, sys
server = socket.socket(); server.bind(("0.0.0.0", 7000)); server.listen(64); print("listens", flush=True)
while sys.stdin.readline():
    connection, peer = server.accept()
    print(peer[0], connection.recv(100), flush=True)
"""
RESET = """
import socket, struct, sys
with socket.create_connection((sys.argv[1], 7000)) as sock:
    sock.send(b"FLUSHALL")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""
HOLD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 7000))
sock.send(b"FLUSHALL"); print("sent", flush=True); sys.stdin.readline()
"""


def slow_server(node: Node, ip: str, *ax: str) -> Process:
    """Accepts one connection for each line of its standard input."""
    server = node.start("--ip", ip, *ax, PYTHON, "-c", SLOW, stdin=-1)
    node.wait_service(ip, 7000)
    return server


def answer(node: Node, server: Process, after: str) -> str:
    """The next line that the server prints."""
    server.send("")
    node.wait(lambda: server.output().count("\n") > after.count("\n"), "the server accepts")
    return server.output()[len(after) :]


def test_reset_connection_does_not_pass_for_loopback(node: Node, mode: list[str]) -> None:
    """Data and then a RST before accept(): the words are read, and a server that trusts 127.0.0.1 must not
    take them for its own machine's.  The kernel has taken the port from such a socket."""
    ip = node.fresh_ip()
    server = slow_server(node, ip, *mode)
    node.run("--ip", "2.2.2.2", *mode, PYTHON, "-c", RESET, ip).ok()
    assert answer(node, server, "listens\n") == "0.0.0.0 b'FLUSHALL'\n"


def test_forgotten_dial_does_not_pass_for_loopback(node: Node, mode: list[str]) -> None:
    """65,536 dials later the dialler's names are forgotten (here: deleted)."""
    ip = node.fresh_ip()
    server = slow_server(node, ip, *mode)
    client = node.start("--ip", "2.2.2.2", *mode, PYTHON, "-c", HOLD, ip, stdin=-1)
    node.wait(lambda: "sent" in client.output(), "the client has dialled")
    (pins,) = node.pins()
    dials = Map(obj_get(pins / "dials"), "dials", 8, 16)
    for key in list(dials.keys()):
        dials.delete(key)
    assert answer(node, server, "listens\n") == "0.0.0.0 b'FLUSHALL'\n"


def test_own_loopback_is_loopback(node: Node, mode: list[str]) -> None:
    """The control: an app that dials itself."""
    script = SLOW.replace(
        "while", "client = socket.create_connection(('127.0.0.1', 7000)); client.send(b'x')\nwhile"
    )
    assert node.run(*mode, PYTHON, "-c", script, stdin="\n").ok() == "listens\n127.0.0.1 b'x'\n"


def test_stranger_does_not_get_an_apps_name(node: Node, mode: list[str]) -> None:
    """From the very port that an app had a moment ago, to the same exposed port: the connection's names
    are remembered by its four numbers."""
    ip = node.fresh_ip()
    server = slow_server(node, ip, "--expose", "7000:10950", *mode)
    client = node.start("--ip", "2.2.2.2", *mode, PYTHON, "-c", HOLD, ip, stdin=-1)
    node.wait(lambda: "sent" in client.output(), "the client has dialled")
    first = answer(node, server, "listens\n")
    assert first == "2.2.2.2 b'FLUSHALL'\n"
    found = re.search(r"127\.0\.0\.1:(\d+) +127\.0\.0\.1:10950", node.host("ss", "-tan").ok())
    assert found
    stranger = (
        "import socket\nsock = socket.socket(); sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        f"sock.bind(('127.0.0.1', {found[1]})); sock.connect(('127.0.0.1', 10950)); sock.send(b'stranger')\n"
    )
    client.send("")
    client.wait()
    assert node.host("ss", "-tanK", "sport", "=", f":{found[1]}").code == 0
    node.host(PYTHON, "-c", stranger).ok()
    assert answer(node, server, "listens\n" + first) == "127.0.0.1 b'stranger'\n"
