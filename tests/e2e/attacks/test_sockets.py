"""What an app does with sockets: pass them on, keep them, make them by other doors, command them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.node import AX, Node
from e2e.sandbox import NODE_IP
from e2e.servers import PROGRAMS as SERVERS
from e2e.servers import PYTHON, start_echo

from .test_reach import EVERYWHERE, PROGRAMS, witness

PASS, COMMANDS, RACE = (str(PROGRAMS / name) for name in ("pass.py", "commands.py", "race.py"))

pytestmark = pytest.mark.timeout(660)  # a C library is compiled once, on a slow machine for minutes


@pytest.fixture(scope="session")
def powers(short_tmp: Path) -> Path:
    """`programs/powers.c`, with the flags of test_resolvers: zig compiles the C library once for both."""
    target = short_tmp / "powers"
    zig = [
        sys.executable,
        "-P",
        "-m",
        "ziglang",
        "cc",
        "-Os",
        "-s",
        "-target",
        "x86_64-linux-musl",
        "-static",
    ]
    env = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(short_tmp / "zig")}
    command = [*zig, "-fno-pie", "-no-pie", "-o", str(target), str(PROGRAMS / "powers.c")]
    subprocess.run(command, env=env, check=True, timeout=600)
    return target


def test_passed_socket_is_still_its_makers(node: Node, mode: list[str], tmp_path: Path) -> None:
    """Between apps of different labels: who holds a socket of another's acts as that one, and may no more."""
    server, other = node.fresh_ip(), node.fresh_ip()
    echo = witness(node, *EVERYWHERE, ax=["--ip", server, "--labels", "role=a", *mode])
    path = str(node.base / f"door{len(mode)}")
    taker = node.start("--labels", "role=b", *mode, PYTHON, PASS, "take", path, server, "7000", stdin=-1)
    node.wait(lambda: "waits" in taker.output(), "the taker waits")
    giver = node.start(
        "--ip", other, "--labels", "role=a", *mode, "sh", "-c", f"{PYTHON} {PASS} give {path}; sleep 99"
    )
    node.wait(lambda: "have" in taker.output(), "the sockets are passed")
    taker.send("")
    node.wait(lambda: taker.output().count("sent") == 2, "both reach the server")
    node.wait(lambda: echo.output().count(f" {other} passed on\n") == 2, "as their maker's")
    giver.stop()
    own = node.run("--labels", "role=b", *mode, PYTHON, str(SERVERS / "dial.py"), "one", server, "7000").ok()
    assert "EACCES" in own


def test_socket_that_outlives_its_app_reaches_nobody(node: Node, mode: list[str]) -> None:
    """Its number of a class is given to the next one: here of the labels that the server asks for."""
    server = node.fresh_ip()
    path = str(node.base / f"heir{len(mode)}")
    heir = node.sandbox.start(
        [PYTHON, PASS, "take", path, server, "7000"], cgroup="host", stdin=subprocess.PIPE
    )
    node.adopt(heir)
    node.wait(lambda: "waits" in heir.output(), "the heir waits")
    node.run("--labels", "role=gone", *mode, PYTHON, PASS, "give", path).ok()
    node.wait(lambda: "have" in heir.output() and not node.get("apps"), "the app has ended")
    friend = start_echo(node, "--labels", "role=secret", *mode, name="secret", ip=server)
    assert friend.popen.poll() is None
    heir.send("")
    node.wait(lambda: heir.output().count("EACCES") == 2, "both are refused")


INHERITING = """
import os, socket
kept, other = socket.socket(), socket.socket()
os.dup2(kept.fileno(), 0)
os.set_inheritable(other.fileno(), True)
os.execv({ax!r}, ["ax", "run", *{mode!r}, {python!r}, "-c", {inner!r}])
"""
INHERITED = """
import errno, os, socket
links = [os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")[:-1]]
print(sum(link.startswith("socket:") for link in links))
sock = socket.socket(fileno=0)
sock.settimeout(2)
for address in ("127.0.0.1", "10.0.2.15"):
    error = sock.connect_ex((address, {real}))
    if error == errno.ECONNABORTED:  # says how the call before it ended
        error = sock.connect_ex((address, {real}))
    print(errno.errorcode.get(error))
"""


def test_sockets_of_the_callers_are_closed(node: Node, mode: list[str]) -> None:
    """One made outside is bound by no rule.  What inetd or systemd pass is kept, and cannot reach apps."""
    ip = node.fresh_ip()
    start_echo(node, *mode, name="echo", ip=ip)
    (service,) = [row for row in node.servers() if row["serviceaddr"] == f"{ip}:7000"]
    real = int(service["ipv4addr"].split(":")[1])
    argv = [
        PYTHON,
        "-c",
        INHERITING.format(inner=INHERITED.format(real=real), ax=AX, mode=mode, python=PYTHON),
    ]
    out = node.sandbox.run(argv, cgroup="apps", env={"AX_RUN_DIR": str(node.run_dir)}).ok()
    assert out == "1\nECONNREFUSED\nECONNREFUSED\n"


def test_other_doors_make_no_socket_of_the_nodes(node: Node, mode: list[str], powers: Path) -> None:
    """io_uring's passes the filter by: it is of the empty namespace, where nobody is.  Other tables of
    system calls: answered as kernels do that lack them."""
    node.host_start(PYTHON, str(SERVERS / "echo.py"), "host", "9002")
    node.wait(lambda: node.host("ss", "-tln").out.count(":9002 "), "the host's server listens")
    ring = f"""
import errno, json, sys; sys.path.insert(0, {str(PROGRAMS)!r})
import socket, uring
sock = uring.new_socket(socket.AF_INET, socket.SOCK_STREAM); sock.settimeout(3)
print(errno.errorcode.get(sock.connect_ex(("{NODE_IP}", 9002)), "reached"))
sock = uring.new_socket(socket.AF_INET, socket.SOCK_STREAM); sock.settimeout(3)
print(errno.errorcode.get(sock.connect_ex(("127.0.0.1", 9002)), "reached"))
"""
    out = node.run("--ip", "2.2.2.2", *mode, PYTHON, "-c", ring).ok()
    # without a namespace the programs on the cgroup see it as any other
    assert out == ("reached\nECONNREFUSED\n" if mode else "ENETUNREACH\nECONNREFUSED\n")
    doors = node.run(*mode, str(powers), "sockets").ok()
    refused = "got one" if mode else "ENOSYS"
    assert doors == f"native got one\nx32 ENOSYS\ni386-socket {refused}\ni386-socketcall {refused}\n"


I386 = """
import os, socket
descriptor = socket.socket().detach()
os.set_inheritable(descriptor, True)
os.execv({powers!r}, ["powers", "ioctl", str(descriptor), "0x894c"])
"""


def test_injected_sockets_do_not_command_the_nodes_network(node: Node, powers: Path) -> None:
    """Not by root either, who means the namespace that the app is in; usual questions are answered."""
    found, fine = json.loads(node.run(PYTHON, COMMANDS, "br0").ok())
    assert len(found) == 18 and set(found.values()) == {"EPERM"}, found
    assert fine.pop("SIOCATMARK") in ("done", "ENOTTY")
    assert set(fine.values()) <= {"done", "EINVAL"}, fine  # EINVAL: an unconnected TCP socket's queues
    assert node.run(PYTHON, "-c", I386.format(powers=str(powers))).ok() == "ioctl EPERM\n"
    assert "UP" in node.host("ip", "link", "show", "br0").ok()


def test_root_without_a_namespace_keeps_root(node: Node) -> None:
    """With the node's own network and as root, a program may do what root may: docs/security.md says so."""
    found, _ = json.loads(node.run("--new-netns=false", PYTHON, COMMANDS, "no0").ok())
    assert (found["SO_MARK"], found["SIOCSIFFLAGS"]) == ("done", "ENODEV")


RAW = """
import errno, socket, subprocess
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET):
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM) if family == socket.AF_PACKET else (socket.SOCK_RAW,):
        try:
            socket.socket(family, kind, 0 if family == socket.AF_PACKET else 6)
            print("made")
        except OSError as error:
            print(errno.errorcode[error.errno])
subprocess.run(["ss", "-tK", "dport", "ge", ":1"])
subprocess.run(["ss", "-tK", "sport", "ge", ":1"])
"""


def test_raw_sockets_and_diagnosis_need_their_rights(node: Node, mode: list[str]) -> None:
    """As an ordinary user: no raw or packet socket, and no connection of another's can be destroyed."""
    ip = node.fresh_ip()
    start_echo(node, *mode, name="echo", ip=ip)
    client = node.start(*mode, PYTHON, str(SERVERS / "dial.py"), "hold", ip, "7000", stdin=-1)
    node.wait(lambda: "echo" in client.output(), "a connection stands")
    out = node.run("--user", "nobody", *mode, "/usr/bin/python3", "-c", RAW)
    assert out.out.split()[:4] == ["EPERM"] * 4, out
    client.send("still there")
    node.wait(lambda: "still there" in client.output(), "the connection stands")


def test_race_of_two_dials_on_one_socket(node: Node, mode: list[str]) -> None:
    """One that policy lets through and one that it does not, in threads, over and over."""
    good, bad = node.fresh_ip(), node.fresh_ip()
    friend = witness(node, *EVERYWHERE, ax=["--ip", good, "--labels", "role=x", *mode])
    server = witness(node, *EVERYWHERE, ax=["--ip", bad, "--labels", "role=y", *mode])
    assert int(node.run("--labels", "role=x", *mode, PYTHON, RACE, good, bad).ok()) > 10
    assert "raced" in friend.output() and server.output() == "ready\n"
