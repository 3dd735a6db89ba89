"""An ordinary user who floods or hangs the daemon stops nobody else; every flood is bounded in number."""

from __future__ import annotations

import socket
import time
from collections import Counter

import pytest

from e2e.node import Node
from e2e.servers import PYTHON

from .test_reach import PROGRAMS

AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def assert_quick(node: Node, within: float = 2.0) -> None:
    """The daemon answers and launches."""
    begin = time.monotonic()
    assert node.get("health")
    assert node.run("--new-netns=false", "true").code == 0
    assert time.monotonic() - begin < within


@pytest.mark.parametrize("when", ["first", "second", "unread"])
def test_descriptor_that_does_not_close(node: Node, when: str) -> None:
    """In the first message, in the second, and in one that is never read."""
    door = str(node.run_dir / "daemon.sock")
    attacker = node.host_start(PYTHON, str(PROGRAMS / "linger.py"), door, when)
    node.wait(lambda: "sent" in attacker.output(), "the trap is laid")
    assert_quick(node)


HELLOS = """
import os, socket, sys, time
held = []
for number in range(int(sys.argv[2])):
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.connect(sys.argv[1])
    if sys.argv[3] == "malformed":
        door.send(b"{" * 100)
        door.recv(4096)
        door.close()
    held.append(door)
print("done", flush=True)
time.sleep(60)
"""


def test_silent_hellos(node: Node) -> None:
    """Connections that say nothing: 64 of one user wait, the rest is turned away."""
    door = str(node.run_dir / "daemon.sock")
    attacker = node.host_start(*AS_NOBODY, "/usr/bin/python3", "-c", HELLOS, door, "700", "silent")
    node.wait(lambda: "done" in attacker.output(), "all have connected")
    assert_quick(node)
    assert node.descriptors()["daemon"] < 200


def test_malformed_hellos_do_not_fill_the_log(node: Node) -> None:
    """Ten a second of one user are logged one by one, and the others counted."""
    door = str(node.run_dir / "daemon.sock")
    before = len(node.events("launch.malformed"))
    begin = time.monotonic()
    attacker = node.host_start(*AS_NOBODY, "/usr/bin/python3", "-c", HELLOS, door, "500", "malformed")
    node.wait(lambda: "done" in attacker.output(), "all were refused")
    seconds = time.monotonic() - begin
    assert len(node.events("launch.malformed")) - before <= 10 * (seconds + 2)
    time.sleep(1.0 - time.monotonic() % 1.0)  # the count is told with the first of the next second
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as root:
        root.connect(door)
        root.send(b"{")
        assert root.recv(4096).startswith(b"error\ncode=65\n")
    node.wait(lambda: node.events("refusals.counted"), "the others are counted")
    assert Counter(event["uid"] for event in node.events("refusals.counted")).keys() == {65534}


SILENT = """
import socket, sys, time
held = []
for number in range(int(sys.argv[1])):
    sock = socket.socket(); sock.connect(("127.0.0.1", 6664))
    sock.send(b"GET /v1/apps HTTP/1.1\\r\\nHost: localhost\\r\\n")
    held.append(sock)
print("done", flush=True)
time.sleep(60)
"""
ASKING = """
import socket, sys, threading, time
def ask():
    while True:
        try:
            with socket.create_connection(("127.0.0.1", 6664)) as sock:
                sock.sendall(b"GET /v1/vservices HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
                while sock.recv(1 << 20):
                    pass
        except OSError:
            pass
for number in range(int(sys.argv[1])):
    threading.Thread(target=ask, daemon=True).start()
print("done", flush=True)
time.sleep(60)
"""


def test_silent_connections_to_rest(node: Node) -> None:
    """Hundreds that never finish their request: the oldest are closed, and the daemon keeps its
    descriptors; whoever asks next is answered."""
    attacker = node.host_start(*AS_NOBODY, "/usr/bin/python3", "-c", SILENT, "300")
    node.wait(lambda: "done" in attacker.output(), "all have connected")
    assert_quick(node)
    assert node.host("curl", "-sS", "-m", "5", "http://127.0.0.1:6664/v1/health").ok()
    assert node.descriptors()["daemon"] < 200


def test_long_answers_of_rest(node: Node) -> None:
    """Twenty ask for all vservices, over and over: launches do not wait for their threads."""
    attacker = node.host_start(*AS_NOBODY, "/usr/bin/python3", "-c", ASKING, "20")
    node.wait(lambda: "done" in attacker.output(), "the flood has begun")
    assert_quick(node, 5.0)
