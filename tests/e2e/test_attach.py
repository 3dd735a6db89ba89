"""`ax attach`: pods on a bridge and processes of the node become apps while they run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .node import Node
from .pods import Pod
from .sandbox import NODE_IP, Process

A, B, C = "10.0.2.21", "10.0.2.22", "10.0.2.23"
SERVE = """
import socket, sys, threading
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", int(sys.argv[1]))); s.listen(64); print("up")
def talk(c, peer):
    c.sendall((sys.argv[2] + " " + peer[0] + "\\n").encode())
    while data := c.recv(100): c.sendall(data)
while True: threading.Thread(target=talk, args=s.accept(), daemon=True).start()
"""
DIAL = """
import socket, sys
s = socket.socket(); s.settimeout(5)
try: s.connect((sys.argv[1], int(sys.argv[2]))); print(s.recv(100).decode().strip(), *s.getpeername())
except OSError as error: print(error.errno)
"""
HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.recv(100); print("up")
for line in sys.stdin: s.sendall(line.encode()); print(s.recv(100).decode().strip())
"""


class Pods:
    """Pods of one node; all end with the test."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.made: list[Pod] = []

    def add(self, name: str, ip: str) -> Pod:
        self.made.append(Pod(self.node.sandbox, name, ip))
        return self.made[-1]

    def serve(self, pod: Pod, port: int, name: str) -> Process:
        process = pod.start("python3", "-u", "-c", SERVE, str(port), name)
        self.node.wait(lambda: "up" in process.output(), f"{name} serves")
        return process

    def attach(self, target: object, *flags: str) -> str:
        return self.node.ax("attach", str(target), *flags).ok().strip()

    def close(self) -> None:
        for pod in self.made:
            pod.close()


@pytest.fixture
def pods(node: Node) -> Iterator[Pods]:
    pods = Pods(node)
    yield pods
    pods.close()
    node.wait(lambda: not [app for app in node.get("apps") if app["attached"]], "the attached apps end")


def dial(pod: Pod, ip: str, port: int) -> str:
    return pod.run("python3", "-c", DIAL, ip, str(port)).ok().strip()


def test_attach_and_detach_while_it_runs(node: Node, pods: Pods) -> None:
    server, client = pods.add("s", A), pods.add("c", B)
    pods.serve(server, 80, "server")
    held = client.start("python3", "-u", "-c", HOLD, A, "80", stdin=-1)
    node.wait(lambda: "up" in held.output(), "a connection of before")
    assert dial(client, "1.1.1.1", 80) == "101"

    appid = pods.attach(server.init.pid, "--ip", "1.1.1.1", "--labels", "role=a", "--name", "web")
    pods.attach(f"/{client.cgroup.relative_to(client.cgroup.parents[1])}", "--labels", "role=a")
    assert [row["ipv4addr"] for row in node.servers()] == [f"{A}:80"]
    assert [row["serviceaddr"] for row in node.servers()] == ["1.1.1.1:80"]
    assert dial(client, "1.1.1.1", 80) == f"server {B} 1.1.1.1 80"
    assert sorted(app["network"] for app in node.get("apps")) == ["own", "own"]
    assert "own" in node.ax("get", "apps", "-o", "wide").ok()
    [socket] = node.get("sockets")
    assert socket["inode"] and (socket["bindip"], socket["real_port"]) == ("0.0.0.0:80", 80)
    held.send("one")
    node.wait(lambda: "one" in held.output(), "the connection lives on")

    node.ax("detach", appid).ok()
    node.ax("detach", str(client.cgroup)).ok()
    assert node.get("apps") == []
    assert dial(client, "1.1.1.1", 80) == "101"
    assert dial(client, A, 80) == f"server {B} {A} 80"
    held.send("two")
    node.wait(lambda: "two" in held.output(), "the connection lives on")


def test_labels_and_strangers(node: Node, pods: Pods) -> None:
    server, other, stranger = pods.add("s", A), pods.add("o", B), pods.add("x", C)
    pods.serve(server, 80, "server")
    pods.attach(server.init.pid, "--ip", "1.1.1.1", "--labels", "role=a")
    pods.attach(other.init.pid, "--labels", "role=b")
    assert dial(other, "1.1.1.1", 80) == dial(other, A, 80) == "13"
    assert dial(stranger, A, 80) == f"server {C} {A} 80"
    explained = node.ax("explain", "--labels", "role=b", "1.1.1.1:80").ok()
    assert "no shared label" in explained


def test_a_service_of_pods_and_apps(node: Node, pods: Pods, mode: list[str]) -> None:
    """Both dial one vservice behind which both stand."""
    pod, client = pods.add("s", A), pods.add("c", B)
    pods.serve(pod, 80, "pod")
    pods.attach(pod.init.pid)
    pods.attach(client.init.pid)
    node.start("--ip", "1.1.1.7", *mode, "python3", "-u", "-c", SERVE, "80", "app")
    node.wait_service("1.1.1.7", 80)
    node.ax(
        "create",
        "vservice",
        "--ip",
        "5.5.5.5",
        "--backends",
        f"{A},1.1.1.7",
        "--ports",
        "8000:80",
        "--lbtype",
        "RoundRobin",
        "both",
    ).ok()
    try:
        found = {dial(client, "5.5.5.5", 8000) for _ in range(4)}
        assert found == {f"pod {B} 5.5.5.5 8000", f"app {B} 5.5.5.5 8000"}
        run = [
            node.run("--ip", "1.1.1.8", *mode, "python3", "-c", DIAL, "5.5.5.5", "8000").ok().strip()
            for _ in range(4)
        ]
        assert set(run) == {f"pod {NODE_IP} 5.5.5.5 8000", "app 1.1.1.8 5.5.5.5 8000"}
    finally:
        node.ax("delete", "vservice", "both").ok()


def test_listeners_older_than_the_attachment_go_when_they_close(node: Node, pods: Pods) -> None:
    pod = pods.add("s", A)
    server = pods.serve(pod, 80, "old")
    pods.attach(pod.init.pid, "--ip", "1.1.1.1")
    assert len(node.servers()) == 1
    server.stop()
    node.wait(lambda: not node.servers(), "the old listener goes")
    pods.serve(pod, 80, "new")
    node.wait_service("1.1.1.1", 80)


def test_a_process_of_the_nodes_own_network(node: Node, pods: Pods) -> None:
    """From then on it is an app as by `ax run --new-netns=false`; what it had open stays as it was."""
    server = node.sandbox.start(["python3", "-u", "-c", SERVE, "8080", "server"], cgroup="service")
    node.wait(lambda: "up" in server.output(), "it serves")
    appid = pods.attach(server.pid, "--ip", "1.1.1.1", "--labels", "role=a")
    [row] = node.servers()
    assert (row["serviceaddr"], row["ipv4addr"]) == ("1.1.1.1:8080", f"{NODE_IP}:8080")
    client = ["--labels", "role=a", "python3", "-c", DIAL]
    assert node.run(*client, "1.1.1.1", "8080").ok().startswith("server ")
    assert node.run("--labels", "role=b", "python3", "-c", DIAL, "1.1.1.1", "8080").ok() == "13\n"
    assert node.host("python3", "-c", DIAL, NODE_IP, "8080").ok().startswith(f"server {NODE_IP}")
    inside = node.sandbox.run(["python3", "-c", DIAL, "127.0.0.1", "6664"], cgroup="service").ok()
    assert inside == "111\n"
    node.ax("detach", appid).ok()
    assert node.host("python3", "-c", DIAL, NODE_IP, "8080").ok().startswith(f"server {NODE_IP}")
    server.stop()


def test_refusals(node: Node, pods: Pods) -> None:
    pod = pods.add("s", A)
    pods.attach(pod.init.pid)
    node.start("--ip", "1.1.1.1", "--new-netns=false", "sleep", "60")
    node.wait(lambda: len(node.get("apps")) == 2, "an app")
    bare = node.sandbox.start(["unshare", "--net", "sleep", "60"], cgroup="bare")
    node.wait(
        lambda: Path(f"/proc/{bare.pid}/ns/net").stat().st_ino != os.stat("/proc/self/ns/net").st_ino,
        "its namespace",
    )
    sandbox = node.sandbox.cgroup.name
    for target, code, words in (
        (str(pod.init.pid), 73, "already"),
        (f"/{sandbox}/apps", 73, "is in the cgroup"),
        (f"/{sandbox}/daemon", 73, "the daemon itself"),
        (f"/{sandbox}", 73, "the daemon itself"),
        ("/", 64, "the root cgroup"),
        ("nobody-knows-me", 66, "no process, cgroup or container"),
        ("../x", 65, "is no process id"),
        (str(bare.pid), 71, "no IPv4 address but loopback"),
    ):
        result = node.ax("attach", target)
        assert (result.code, words in result.err) == (code, True), (target, result)
    assert node.ax("attach", str(pod.init.pid), "--ip", "127.0.0.1").code == 65
    run = next(app["appid"] for app in node.get("apps") if not app["attached"])
    assert node.ax("detach", run).code == 73
    assert node.ax("detach", "nobody-knows-me").code == 66
    bare.stop()


def test_a_second_network_namespace_in_the_cgroup(node: Node, pods: Pods) -> None:
    pod = pods.add("s", A)
    stray = node.sandbox.start(["sleep", "60"], cgroup=pod.cgroup_name)
    result = node.ax("attach", str(pod.init.pid))
    assert result.code == 73 and "in 2 network namespaces" in result.err
    stray.stop()


@pytest.fixture
def own_pods(own_node: Node) -> Iterator[Pods]:
    pods = Pods(own_node)
    yield pods
    pods.close()
    own_node.wait(lambda: not own_node.get("apps"), "the attached apps end")


def test_survives_the_daemon(own_node: Node, own_pods: Pods) -> None:
    node, pods = own_node, own_pods
    server, client = pods.add("s", A), pods.add("c", B)
    pods.serve(server, 80, "server")
    for pod in (server, client):
        pods.attach(pod.init.pid, "--ip", "1.1.1.1" if pod is server else "2.2.2.2")
    node.stop_daemon(9)
    assert dial(client, "1.1.1.1", 80) == f"server {B} 1.1.1.1 80"
    node.start_daemon()
    assert [app["appip"] for app in node.get("apps")] and len(node.servers()) == 1
    assert dial(client, "1.1.1.1", 80) == f"server {B} 1.1.1.1 80"
    assert _programs(server) == 16
    node.stop_daemon()
    node.start_daemon("--clean")
    assert node.get("apps") == [] and _programs(server) == _programs(client) == 0
    pods.attach(server.init.pid, "--ip", "1.1.1.1")
    before: dict[str, int] = {}
    for _ in range(6):
        before = before or node.descriptors()
        node.ax("detach", str(server.init.pid)).ok()
        pods.attach(server.init.pid, "--ip", "1.1.1.1")
    node.wait(lambda: node.descriptors()["daemon"] <= before["daemon"], f"no descriptor stays of {before}")


def _programs(pod: Pod) -> int:
    """Programs on its cgroup."""
    shown = subprocess.run(
        ["bpftool", "-j", "cgroup", "show", str(pod.cgroup)], capture_output=True, check=False
    )
    return len(json.loads(shown.stdout.strip() or "[]"))
