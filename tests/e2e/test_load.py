"""Many connections, none fails, and nothing is left of them."""

from __future__ import annotations

import json

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("number", "tasks"), [(10_000, 1), (20, 500)], ids=["sequential", "concurrent"])
def test_none_fails(node: Node, mode: list[str], number: int, tasks: int) -> None:
    ip = node.fresh_ip()
    descriptors = node.daemon_fds()
    start_echo(node, *mode, name="load", ip=ip)
    out = node.run(*mode, *DIAL, "many", ip, "7000", str(number), str(tasks), timeout=150).ok()
    assert json.loads(out) == {"names": {"load": number * tasks}, "errors": {}}
    node.stop_apps()
    node.wait(lambda: node.daemon_fds() <= descriptors, "the daemon's descriptors are given back")


def test_listen_and_connect_at_once(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    result = node.run("--ip", ip, *mode, PYTHON, str(PROGRAMS / "instant.py"), ip, "300")
    assert (result.out, result.err) == ("300\n", "")


def test_pool_ports_come_back(own_node: Node) -> None:
    """A pool of 1,000 ports lasts for many more binds than that, if no app holds them all at once."""
    ip = own_node.fresh_ip()
    instant = [PYTHON, str(PROGRAMS / "instant.py"), ip, "300"]
    own_node.stop_daemon()
    own_node.start_daemon("--ports", "40000-40999", "--clean")
    for _ in range(8):
        assert own_node.run("--ip", ip, "--new-netns=false", *instant).ok() == "300\n"
