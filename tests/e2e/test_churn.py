"""While everything around them changes, connections of those who have not changed go where they should."""

from __future__ import annotations

import json
import time

import pytest

from e2e.node import Node, unix_http
from e2e.servers import PROGRAMS, PYTHON, start_echo

SECONDS = 6.0


@pytest.mark.timeout(120)
def test_unrelated_changes_disturb_nobody(node: Node, mode: list[str]) -> None:
    """Vservices come and go, apps start and end, table slots are used again: no dial fails or strays."""
    steady, other = node.fresh_ip(), node.fresh_ip()
    start_echo(node, *mode, name="steady", ip=steady)
    start_echo(node, *mode, name="other", ip=other)
    rest = unix_http(node.run_dir / "api.sock")

    def change(method: str, path: str, body: object = None) -> None:
        rest.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = rest.getresponse()
        response.read()
        assert response.status < 300, response.status

    def vservice(name: str, ip: str, backends: list[str]) -> dict[str, object]:
        return {"name": name, "ip": ip, "backends": backends, "ports": [{"port": 80, "target": 7000}]}

    change("POST", "/v1/vservices", vservice("kept", "5.1.1.1", [steady]))
    dial = [PYTHON, str(PROGRAMS / "dial.py"), "loop"]
    clients = [
        node.start("--ip", "2.2.2.2", *mode, *dial, address, port)
        for address, port in ((steady, "7000"), ("5.1.1.1", "80"))
    ]
    node.wait(lambda: all("ok" in client.output() for client in clients), "the clients dial")
    deadline, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        rounds += 1
        for number in range(20):
            backends = [other] + [f"11.1.{number}.{index}" for index in range(1, 1 + rounds % 7)]
            change("POST", "/v1/vservices", vservice(f"vs{number}", f"5.2.{number}.1", backends))
        node.run("--ip", steady, "--labels", "a=b", *mode, "true").ok()  # the same address, other labels
        node.run("--labels", f"round={rounds}", *mode, "true").ok()  # a new class
        for number in range(20):
            change("DELETE", f"/v1/vservices/vs{number}")
    change("DELETE", "/v1/vservices/kept")
    rest.close()
    assert rounds > 5
    steady_said = clients[0].output().splitlines()
    assert len(steady_said) > 100 and set(steady_said) == {"ok steady"}
    # the other client's vservice is gone at the very end: only then may it have failed
    said = clients[1].output().splitlines()
    wrong = [line for line in said[:-50] if line != "ok steady"]
    assert len(said) > 100 and not wrong and not any("other" in line for line in said)
