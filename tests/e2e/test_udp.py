"""UDP under `ax run`: connected and unconnected clients, a server that answers whoever asks."""

from __future__ import annotations

import json

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON

UDP = [PYTHON, str(PROGRAMS / "udp.py")]


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_udp_echo(node: Node, mode: list[str], how: str) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, *UDP, "server", "9000")
    client = ["--ip", "2.2.2.2", *mode, *UDP, how, ip, "9000"]
    node.wait(lambda: node.run(*client).code == 0, "the UDP server answers", 20)
    seen = json.loads(node.run(*client).ok())
    assert seen["answer"] == "2.2.2.2 question 4"
    assert seen["from"] == [ip, 9000]
    assert seen["peername"] == ([ip, 9000] if how == "connected" else None)
