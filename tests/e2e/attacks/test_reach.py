"""A program of an app's tries to reach what policy refuses, in every spelling and by every system call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.sandbox import NODE_IP, Process
from e2e.servers import PYTHON

PROGRAMS = Path(__file__).parent / "programs"
WITNESS, REACH = str(PROGRAMS / "witness.py"), str(PROGRAMS / "reach.py")
LOOPBACKS = ("127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0")
EVERYWHERE = ("tcp:0.0.0.0:7000", "udp:0.0.0.0:7000")
WAYS = 14
"""Of `reach.py`, for each destination."""
WORKING = (
    *("tcp", "nonblocking", "fastopen-later", "ring", "dissolved"),
    *("udp", "sendto", "sendmsg", "sendmmsg", "udp-ring", "re-aimed", "udp-dissolved"),
)
"""Those that get through where policy lets them."""


def witness(node: Node, *specs: str, ax: Sequence[str] | None = None) -> Process:
    """A program that tells what reached it: of the host, or with the flags of `ax run`."""
    argv = [PYTHON, WITNESS, *specs]
    process = node.host_start(*argv) if ax is None else node.start(*ax, *argv)
    node.wait(lambda: "ready" in process.output(), "the witness listens")
    return process


def reach(node: Node, ax: Sequence[str], allowed: str, *targets: tuple[str, int]) -> dict[str, str]:
    """What came of each way to each target; the marks are ADDRESS,PORT/WAY."""
    threes = [word for host, port in targets for word in (host, str(port), f"{host},{port}")]
    out = node.run(*ax, PYTHON, REACH, "--allowed", allowed, "7000", *threes, timeout=120).ok()
    found: dict[str, str] = json.loads(out)
    assert len(found) == WAYS * len(set(targets))
    return found


@pytest.fixture
def friend(node: Node, mode: list[str]) -> tuple[str, Process]:
    """A server that the attacker may reach: the control of each attack."""
    ip = node.fresh_ip()
    return ip, witness(node, *EVERYWHERE, ax=["--ip", ip, "--labels", "role=x", *mode])


def attack(
    node: Node, mode: list[str], friend: tuple[str, Process], *targets: tuple[str, int]
) -> dict[str, str]:
    """`reach`, as an app of label role=x, with proof that every way works where policy lets it."""
    ip, process = friend
    found = reach(node, ["--labels", "role=x", *mode], ip, *targets, (ip, 7000))
    for way in WORKING:
        node.wait(lambda way=way: f"{ip},7000/{way}\n" in process.output(), f"{way} arrives")
    assert {found[mark] for mark in found if mark.endswith("/mptcp")} == {"EPROTONOSUPPORT"}
    return found


def test_loopback_of_the_host(node: Node, mode: list[str], friend: tuple[str, Process]) -> None:
    """Programs of the host's own, on its loopback alone."""
    host = witness(node, "tcp:127.0.0.1:9001", "udp:127.0.0.1:9001", "tcp:::1:9001", "udp:::1:9001")
    attack(node, mode, friend, *((address, 9001) for address in (*LOOPBACKS, NODE_IP)))
    assert host.output() == "ready\n"


def test_the_daemon(node: Node, mode: list[str], friend: tuple[str, Process]) -> None:
    """The REST port and the DNS server's real one, which are on 127.0.0.1."""
    dns = int((node.run_dir / "dns_port").read_text())
    targets = [(address, port) for address in (*LOOPBACKS, NODE_IP) for port in (6664, dns)]
    found = attack(node, mode, friend, *targets)
    tcp = {mark: found[mark] for mark in found if mark.rpartition("/")[2] in ("tcp", "ring")}
    errors = {error for mark, error in tcp.items() if not mark.startswith(friend[0])}
    assert errors == {"ECONNREFUSED", "EACCES"}


def test_metadata(node: Node, mode: list[str], friend: tuple[str, Process]) -> None:
    """Link-local addresses: every cloud's credentials."""
    addresses = ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1%lo")
    found = attack(node, mode, friend, *((address, 80) for address in addresses))
    refused = {found[mark] for mark in found if mark.startswith(addresses)}
    assert refused <= {"EACCES", "EPROTONOSUPPORT", "sent 0"}


def test_another_apps_ports(node: Node, mode: list[str], friend: tuple[str, Process]) -> None:
    """By the virtual address and by the real ports, on each address that the node has."""
    ip = node.fresh_ip()
    server = witness(
        node,
        *EVERYWHERE,
        "tcp:127.0.0.1:7001",
        "udp:127.0.0.1:7001",
        ax=["--ip", ip, "--labels", "a=b", *mode],
    )
    (app,) = (app["appid"] for app in node.get("apps") if app["appip"] == ip)
    ports = [row["real_port"] for row in node.get("sockets") if row["appid"] == app]
    assert len(ports) == 4
    addresses = (*LOOPBACKS, NODE_IP, f"::ffff:{NODE_IP}")
    targets = [(address, port) for address in addresses for port in ports]
    attack(node, mode, friend, (ip, 7000), (ip, 7001), (f"::ffff:{ip}", 7000), *targets)
    assert server.output() == "ready\n"
