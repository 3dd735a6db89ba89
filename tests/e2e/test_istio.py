"""Recorded pushes of a real Istiod move real connections."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.node import ROOT, Node
from e2e.sandbox import NODE_IP, Process
from e2e.servers import PROGRAMS, PYTHON, start_echo

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]
BOOKINFO = ROOT / "istio-samples" / "bookinfo" / "recording"
FIXTURES = ROOT / "tests" / "fixtures" / "istiod"
BOTH_DIALOGUES = pytest.mark.parametrize("dialogue", ["sotw", "delta"])
"""A server of one dialogue alone; the daemon begins with delta."""
NODE_ID = "sidecar~10.244.9.1~client-1.default~default.svc.cluster.local"
TARGET = "127.0.0.1:15010"
REVIEWS = "10.96.1.3"
HOST_PORT = 18080


@pytest.fixture
def mesh_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node whose daemon (not started yet) will speak to an Istiod, as the client or as who is named."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    node_id = getattr(request, "param", NODE_ID)
    node = Node(folder, "--istio", TARGET, "--istio-node-id", node_id, start=False)
    yield node
    leaks = node.close()
    shutil.rmtree(folder)
    assert not leaks, leaks


def istiod(node: Node, recording: Path) -> Process:
    """A replaying Istiod in the node's namespace; SIGUSR1 takes it one step further."""
    argv = [PYTHON, "-P", "-m", "appswitch.xds.replay_cli", str(recording), "--port", "15010"]
    process = node.host_start(*argv)
    node.wait(lambda: "serving" in process.output(), "the replayed Istiod", 30)
    return process


def backends(node: Node, host: str) -> list[str]:
    """Where a vservice leads, as IP:port."""
    for row in node.get("vservices"):
        if row["name"].startswith(f"{host}."):
            return sorted(f"{backend['ip']}:{backend['port']}" for backend in row["backends"])
    return []


def step(node: Node, server: Process, host: str, wanted: list[str]) -> None:
    """One step further, and until a vservice leads to `wanted`."""
    server.popen.send_signal(signal.SIGUSR1)
    node.wait(lambda: backends(node, host) == wanted, f"{host} leads to {wanted}", 30)


def answers(node: Node, mode: list[str], ip: str, port: int, times: int = 400) -> Counter[str]:
    """Who answers how many of a client's connections."""
    out = node.run(*mode, *DIAL, "many", ip, str(port), str(times), "1", timeout=60).ok()
    seen = json.loads(out)
    return Counter({**seen["names"], **seen["errors"]})


def pod(address: str, port: int = 9080) -> str:
    return f"{address}:{port}"


@BOTH_DIALOGUES
def test_bookinfo(mesh_node: Node, mode: list[str], dialogue: str) -> None:
    """80/20, then all to v3 at the next push; a connection from before lives on, with Istiod dead too."""
    node = mesh_node
    server = istiod(node, FIXTURES / "bookinfo-delta" if dialogue == "delta" else BOOKINFO)
    node.start_daemon()
    node.wait(lambda: len(node.get("vservices")) == 6, "the first push", 30)
    assert len([each for each in node.events("note") if "delta xDS" in each["text"]]) == (dialogue == "sotw")
    undone = {row["field"]: row for row in node.get("unsupported")}
    assert {"cluster.connect_timeout", "cluster.lb_policy"} <= set(undone)
    assert 0 <= undone["cluster.lb_policy"]["seconds"] < 120
    for name, address in (("v1", "31"), ("v2", "32"), ("v3", "33"), ("v3b", "34")):
        start_echo(node, *mode, name=name, ip=f"10.244.1.{address}", port=9080)
    held = node.start(*mode, *DIAL, "hold", REVIEWS, "9080", stdin=subprocess.PIPE)
    node.wait(lambda: "sockname" in held.output(), "the long connection")
    seen = answers(node, mode, REVIEWS, 9080)
    assert set(seen) == {"v1", "v2"}
    assert abs(seen["v1"] - 320) < 40  # five standard deviations
    name = json.loads(node.run(*mode, *DIAL, "one", "reviews.default.svc.cluster.local", "9080").ok())
    assert name["peername"] == [REVIEWS, 9080]
    step(node, server, "reviews", [pod("10.244.1.33")])
    assert answers(node, mode, REVIEWS, 9080) == {"v3": 400}
    step(node, server, "reviews", [pod("10.244.1.33"), pod("10.244.1.34")])
    assert set(answers(node, mode, REVIEWS, 9080, 100)) == {"v3", "v3b"}
    step(node, server, "reviews", [pod("10.244.1.34")])
    assert answers(node, mode, REVIEWS, 9080, 100) == {"v3b": 100}
    server.stop(signal.SIGKILL)
    node.wait(lambda: node.events("istio.disconnected"), "Istiod is missed")
    before = node.ax("get", "vservices").ok()
    node.stop_daemon(signal.SIGKILL)
    node.start_daemon()
    assert node.ax("get", "vservices").ok() == before  # the next daemon has Istio's last table
    assert answers(node, mode, REVIEWS, 9080, 100) == {"v3b": 100}
    held.send("still there")
    node.wait(lambda: "still there" in held.output(), "the long connection still echoes")


def agent_pid(node: Node) -> int:
    """The Istio agent's process."""
    for pid in node.sandbox.pids():
        if b"appswitch.agent.istio_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no Istio agent")


def test_seeing_why(mesh_node: Node) -> None:
    """What Istiod sent, and where a decision comes from; with the agent's process dead, that is said."""
    node = mesh_node
    server = istiod(node, FIXTURES / "bookinfo-delta")
    node.start_daemon()
    node.wait(lambda: len(node.get("vservices")) == 6, "the first push", 30)
    node.wait(lambda: {row["status"] for row in node.get("xds")} == {"ACKED"}, "all is there", 30)
    host = "reviews.default.svc.cluster.local"
    v1 = f"outbound|9080|v1|{host}"
    rows = [line.split() for line in node.ax("get", "clusters").ok().splitlines()]
    assert [host, "9080", "v1", "outbound", "EDS", "reviews.default"] in rows
    assert f"eds/{v1}" in node.ax("get", "xds", "-o", "name").ok().splitlines()
    assert [row["endpoint"] for row in node.get("endpoints") if row["cluster"] == v1] == ["10.244.1.31:9080"]
    assert "Route: 9080" in node.ax("get", "listeners").ok()
    assert "reviews.default" in node.ax("get", "routes").ok()
    why = node.ax("explain", f"{REVIEWS}:9080").ok()
    assert "virtual-service default/reviews" in why and "destination-rule default/reviews" in why
    before = node.get("clusters")[-1]["version"]
    step(node, server, "reviews", [pod("10.244.1.33")])
    node.wait(lambda: node.get("clusters")[-1]["version"] != before, "the new version")
    os.kill(agent_pid(node), signal.SIGKILL)
    away = node.ax("get", "clusters")
    assert (away.code, away.out) == (69, "")
    assert "the Istio agent's process is away" in away.err
    why = node.ax("explain", f"{REVIEWS}:9080").ok()
    assert "verdict: connected to 10.244.1.33:9080" in why and "origin: unknown" in why
    node.wait(lambda: node.ax("get", "clusters").code == 0, "the next agent", 30)


@BOTH_DIALOGUES
def test_subset_swap_without_a_failed_connection(mesh_node: Node, dialogue: str) -> None:
    """Istiod removes the old subset in the first message of the push: nobody may notice."""
    node = mesh_node
    server = istiod(node, FIXTURES / ("subset-swap-delta" if dialogue == "delta" else "subset-swap"))
    node.start_daemon()
    node.wait(lambda: len(node.get("vservices")) == 2, "the first push", 30)
    for number in (1, 2, 3):
        start_echo(node, name=f"v{number}", ip=f"10.244.2.{number}", port=6379)
    client = node.start("--new-netns=false", *DIAL, "loop", "10.96.2.1", "6379")
    for pods in ((2, 3), (1, 2), (3,)):
        step(node, server, "redis", [pod(f"10.244.2.{number}", 6379) for number in pods])
        begin = len(client.output().splitlines())
        node.wait(lambda begin=begin: len(client.output().splitlines()) > begin + 30, "30 connections more")
    lines = client.output().splitlines()
    assert set(lines) == {"ok v1", "ok v2", "ok v3"}
    assert set(lines[-25:]) == {"ok v3"}


ORDERS = "10.244.5.1"
ORDERS_ID = f"sidecar~{ORDERS}~orders-1.shop~shop.svc.cluster.local"
PEERS = {
    "cart": ("--ip", "10.244.5.11", "--namespace", "shop", "--service-account", "cart"),
    "front": ("--ip", "10.8.0.1", "--namespace", "front-a", "--service-account", "web"),
    "near": ("--ip", "10.244.5.12"),
    "banned": ("--ip", "10.244.5.99"),
    "stranger": ("--ip", "10.8.0.4"),
}


@pytest.mark.timeout(150)  # some 30 launches of Python
@pytest.mark.parametrize("mesh_node", [ORDERS_ID], indirect=True)
def test_who_may_connect_to_the_workloads_servers(mesh_node: Node, mode: list[str]) -> None:
    """Addresses, identities, ports and mutual TLS, step by step; and what a killed daemon leaves."""
    node = mesh_node
    server = istiod(node, FIXTURES / "server-delta")
    node.start_daemon()
    node.wait(lambda: len(node.get("vservices")) >= 2, "the first push", 30)
    for port in (7000, 7001):
        start_echo(node, *mode, name=f"on-{port}", ip=ORDERS, port=port)

    def dial(peer: str, *ports: int, address: str = ORDERS) -> list[str]:
        out = node.run(*mode, *PEERS[peer], *DIAL, "each", address, *map(str, ports)).ok()
        return [str(got.get("name") or got["errno"]) for got in map(json.loads, out.splitlines())]

    def let_in() -> tuple[set[str], set[str]]:
        """Whom port 7000 lets in, and 7001."""
        found = {peer: dial(peer, 7000, 7001) for peer in PEERS}
        assert {got for answers in found.values() for got in answers} <= {"on-7000", "on-7001", "EACCES"}
        first, second = ({peer for peer, got in found.items() if got[i] != "EACCES"} for i in (0, 1))
        return first, second

    def forward(*steps: str) -> None:
        for name in steps:
            server.popen.send_signal(signal.SIGUSR1)
            node.wait(lambda name=name: f"step {name}" in server.output(), f"step {name}", 30)

    def refused(peer: str, port: int) -> None:
        node.wait(lambda: dial(peer, port) == ["EACCES"], f"{peer} is refused at {port}", 30)

    assert let_in() == (set(PEERS), set(PEERS))
    forward("allow-ip-and-port")
    refused("stranger", 7000)
    assert let_in() == ({"cart", "near"}, set())
    # by the service's VIP too: what is left for it is the other endpoint, which is on no network here
    assert dial("banned", 7000, 7000, 7000, 7000, address="10.96.5.1") == ["ENETUNREACH"] * 4
    assert "no ALLOW policy matches this client" in node.ax("explain", f"{ORDERS}:7000").ok()
    forward("allow-principals", "allow-namespaces")
    node.wait(lambda: dial("front", 7001) == ["on-7001"], "namespaces are let in", 30)
    assert let_in() == ({"cart", "near", "front"}, {"cart", "front"})
    forward("deny-port")
    refused("cart", 7001)
    assert let_in() == ({"cart", "near", "front"}, set())
    node.stop_daemon(signal.SIGKILL)
    server.stop(signal.SIGKILL)
    node.start_daemon()
    assert let_in() == ({"cart", "near", "front"}, set())


def test_registry_only(mesh_node: Node, mode: list[str]) -> None:
    """What the mesh does not know is refused; apps and services are not; a killed daemon changes nothing."""
    node = mesh_node
    server = istiod(node, FIXTURES / "bookinfo-delta")
    node.start_daemon()
    node.wait(lambda: len(node.get("vservices")) == 6, "the first push", 30)
    node.host_start(PYTHON, str(PROGRAMS / "echo.py"), "host", str(HOST_PORT))
    start_echo(node, *mode, name="v3b", ip="10.244.1.34", port=9080)
    start_echo(node, *mode, name="app", ip="1.1.1.1", port=7000)

    def dial(address: str, port: int) -> str:
        got = json.loads(node.run(*mode, *DIAL, "one", address, str(port)).ok())
        return str(got.get("name") or got["errno"])

    node.wait(lambda: dial(NODE_IP, HOST_PORT) == "host", "a program of the node's is reached", 30)
    for name in (
        "shift-reviews-to-v3",
        "scale-reviews-v3",
        "reviews-v3-first-pod-gone",
        "delete-details",
        "authorization-allow",
        "authorization-deny",
        "registry-only",
    ):
        server.popen.send_signal(signal.SIGUSR1)
        node.wait(lambda name=name: f"step {name}" in server.output(), f"step {name}", 30)
    node.wait(lambda: dial(NODE_IP, HOST_PORT) == "ENETUNREACH", "the rest is refused", 30)
    node.stop_daemon(signal.SIGKILL)
    server.stop(signal.SIGKILL)
    node.start_daemon()
    assert dial(NODE_IP, HOST_PORT) == "ENETUNREACH"
    assert (dial(REVIEWS, 9080), dial("1.1.1.1", 7000)) == ("v3b", "app")
    assert "REGISTRY_ONLY" in node.ax("explain", "9.9.9.9:443").ok()
