"""`ax run --expose`: strangers reach the app on the node's port, and nobody else's."""

from __future__ import annotations

import pytest

from e2e.node import Node
from e2e.servers import PYTHON

NODE_IP = "10.0.2.15"


def test_strangers_reach_an_exposed_port(node: Node, mode: list[str]) -> None:
    """On every address of the node; apps reach it by the virtual one as ever; after its end it is free."""
    ip = node.fresh_ip()
    server = node.start(*mode, "--ip", ip, "--expose", "8000:10900", PYTHON, "-m", "http.server", "8000")
    node.wait_service(ip, 8000)
    (row,) = [row for row in node.servers() if row["serviceaddr"] == f"{ip}:8000"]
    assert row["ipv4addr"] == f"{NODE_IP}:10900"
    for address in (NODE_IP, "127.0.0.1"):
        assert "200 OK" in node.host("curl", "-sI", "-m", "5", f"http://{address}:10900/").ok()
    assert "200 OK" in node.run(*mode, "curl", "-sI", "-m", "5", f"http://{ip}:8000/").ok()
    taken = node.run(*mode, "--expose", "9:10900", "true")
    assert taken.code == 73 and "port 10900 of the node is exposed by app" in taken.err
    server.stop()
    node.wait(lambda: f"{ip}:8000" not in str(node.servers()), "the server is gone")
    node.wait(lambda: node.run(*mode, "--expose", "8000:10900", "true").code == 0, "the port is free")


@pytest.mark.parametrize(("bound", "port"), [("0.0.0.0", 10910), ("own", 10911), ("::", 10912)])
def test_one_address_of_the_node(node: Node, mode: list[str], bound: str, port: int) -> None:
    """Strangers are admitted there and nowhere else, whatever address the app binds; the mesh goes on."""
    ip = node.fresh_ip()
    server = [PYTHON, "-m", "http.server", "--bind", bound.replace("own", ip), "8000"]
    node.start(*mode, "--ip", ip, "--expose", f"8000:{NODE_IP}:{port}", *server)
    node.wait_service(ip, 8000)
    (row,) = [row for row in node.servers() if row["serviceaddr"] == f"{ip}:8000"]
    assert row["ipv4addr"] == f"{NODE_IP}:{port}"
    assert "200 OK" in node.host("curl", "-sI", "-m", "5", f"http://{NODE_IP}:{port}/").ok()
    for elsewhere in ("127.0.0.1", "[::1]", "127.0.0.2"):
        assert node.host("curl", "-sI", "-m", "1", f"http://{elsewhere}:{port}/").code in (7, 28)
    assert "200 OK" in node.run(*mode, "curl", "-sI", "-m", "5", f"http://{ip}:8000/").ok()


def test_others_stay_closed(node: Node, mode: list[str]) -> None:
    """A second port of the same app is not exposed with the first."""
    ip = node.fresh_ip()
    node.start(*mode, "--ip", ip, "--expose", "8000:10901", PYTHON, "-m", "http.server", "8001")
    node.wait_service(ip, 8001)
    (row,) = [row for row in node.servers() if row["serviceaddr"] == f"{ip}:8001"]
    assert node.host("curl", "-sI", "-m", "5", f"http://{row['ipv4addr']}/").code != 0


def test_what_cannot_be_exposed(node: Node) -> None:
    """Another node's address, and a port of the host's own programs."""
    other = node.run("--expose", "80:9.9.9.9:10902", "true")
    assert other.code == 71 and "9.9.9.9 is not this node" in other.err
    taken = node.run("--expose", "80:6664", "true")
    assert taken.code == 73 and "port 6664 of the node is in use" in taken.err
