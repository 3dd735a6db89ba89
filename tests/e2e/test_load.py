"""Many connections, none fails, and nothing is left of them."""

from __future__ import annotations

import json
import shutil

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


def in_use(node: Node) -> dict[str, int]:
    """Entries of the kernel's tables (apps' ports where there is bpftool), and our processes' descriptors."""
    found = {name: table["used"] for name, table in node.get("health")["tables"].items()}
    if shutil.which("bpftool"):
        for name in ("ports", "reals", "counts"):
            dump = node.host("bpftool", "-j", "map", "dump", "pinned", str(node.pins()[0] / name))
            found[name] = len(json.loads(dump.ok()))
    return {**found, **node.descriptors()}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("number", "tasks"), [(10_000, 1), (20, 500)], ids=["sequential", "concurrent"])
def test_none_fails(node: Node, mode: list[str], number: int, tasks: int) -> None:
    ip = node.fresh_ip()
    node.run("true").ok()  # starts the holder
    node.wait(lambda: not node.get("apps"), "that app's end is seen")
    before = in_use(node)
    start_echo(node, *mode, name="load", ip=ip)
    out = node.run(*mode, *DIAL, "many", ip, "7000", str(number), str(tasks), timeout=150).ok()
    assert json.loads(out) == {"names": {"load": number * tasks}, "errors": {}}
    node.stop_apps()

    def given_back() -> bool:
        return all(value <= before[name] for name, value in in_use(node).items())

    node.wait(given_back, f"{in_use(node)} is {before} again", 20)


def test_listen_and_connect_at_once(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    result = node.run("--ip", ip, *mode, PYTHON, str(PROGRAMS / "instant.py"), ip, "300")
    assert (result.out, result.err) == ("300\n", "")
