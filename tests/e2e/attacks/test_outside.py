"""Whoever is in no app: programs of the node, and the network."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.node import Node
from e2e.pods import Pod
from e2e.sandbox import NODE_IP
from e2e.servers import PYTHON, start_echo

from .test_reach import EVERYWHERE, witness

NEIGHBOUR = "10.0.2.77"


@pytest.fixture
def neighbour(node: Node) -> Iterator[Pod]:
    """Another machine of the node's network."""
    pod = Pod(node.sandbox, "axatt", NEIGHBOUR)
    try:
        yield pod
    finally:
        pod.close()


def real_ports(node: Node, ip: str) -> tuple[int, int]:
    """The real ports of the app at `ip`: TCP's, UDP's."""
    (app,) = (app["appid"] for app in node.get("apps") if app["appip"] == ip)
    found = {row["proto"]: row["real_port"] for row in node.get("sockets") if row["appid"] == app}
    return found["tcp"], found["udp"]


STRANGER = """
import errno, json, socket, sys
found = {}
address, *ports = sys.argv[1:]
for port in map(int, ports):
    with socket.socket() as sock:
        sock.settimeout(1)
        found[f"tcp {port}"] = errno.errorcode.get(sock.connect_ex((address, port)), "reached")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"stranger", (address, port))
    with socket.socket() as sock:  # with options in the header of IP: record route
        sock.settimeout(1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0]))
        found[f"options {port}"] = errno.errorcode.get(sock.connect_ex((address, port)), "reached")
print(json.dumps(found))
"""


def test_stranger_of_the_node(node: Node, mode: list[str]) -> None:
    """The real ports, dialled by a program in no app, on both addresses."""
    ip = node.fresh_ip()
    server = witness(node, *EVERYWHERE, ax=["--ip", ip, *mode])
    ports = [str(port) for port in real_ports(node, ip)]
    for address in ("127.0.0.1", NODE_IP):
        found = json.loads(node.host(PYTHON, "-c", STRANGER, address, *ports).ok())
        assert "reached" not in found.values(), found
    assert server.output() == "ready\n"


SPOOFING = """
import socket, struct, sys
target, *ports = sys.argv[1:]
def sum16(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data + b"" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for port in map(int, ports):
    for source in ("127.0.0.1", target, "10.0.2.77", "1.1.1.1"):
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        for flags in (0x02, 0x10, 0x12, 0x03):  # SYN; ACK, as of a SYN cookie; SYN and ACK; SYN and FIN
            head = struct.pack("!HHIIBBHHH", 40000, port, 1, 1, 0x50, flags, 1024, 0, 0)
            check = sum16(ends + struct.pack("!BBH", 0, 6, len(head)) + head)
            head = head[:16] + struct.pack("!H", check) + head[18:]
            packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(head), 1, 0, 64, 6, 0) + ends + head
            raw.sendto(packet, (target, 0))
        data = struct.pack("!HHHH", 40000, port, 8 + 7, 0) + b"spoofed"
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0) + ends + data
        raw.sendto(packet, (target, 0))
print("sent")
"""


def test_network(node: Node, mode: list[str], neighbour: Pod) -> None:
    """A neighbour dials and sends, also in the name of the node itself; neither answer nor app notices."""
    ip = node.fresh_ip()
    server = witness(node, *EVERYWHERE, ax=["--ip", ip, *mode])
    ports = real_ports(node, ip)
    found = json.loads(neighbour.run("python3", "-c", STRANGER, NODE_IP, *map(str, ports)).ok())
    assert "reached" not in found.values(), found
    # silence: a scanner learns nothing
    assert found[f"tcp {ports[0]}"] == "EAGAIN"
    assert neighbour.run("python3", "-c", SPOOFING, NODE_IP, *map(str, ports)).ok() == "sent\n"
    dns = (node.run_dir / "dns_port").read_text()
    for port in ("6664", dns):
        found = json.loads(neighbour.run("python3", "-c", STRANGER, NODE_IP, port).ok())
        assert found[f"tcp {port}"] == "ECONNREFUSED"
    assert node.host("ss", "-tn", "state", "established", "sport", "ge", ":40000").out.count("\n") <= 1
    assert server.output() == "ready\n"


def test_browser(node: Node) -> None:
    """What a web page of elsewhere can make a browser on the node send to the REST port."""

    def ask(*argv: str) -> str:
        words = [
            "curl",
            "-sS",
            "-m",
            "5",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %header{access-control-allow-origin}",
        ]
        return node.host(*words, *argv).ok().strip()

    base = "http://127.0.0.1:6664/v1/vservices"
    assert ask(base) == "200"
    assert ask("-H", "Host: evil.example:6664", base) == "403"  # a name of its own that points here
    assert ask("-H", "Host: 127.0.0.1.evil.example", base) == "403"
    assert ask("-H", "Host: localhost.evil.example", base) == "403"
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask("-X", method, "-H", "Origin: http://evil.example", "-d", "{}", base).startswith(
            ("403", "405")
        )
    assert ask("-H", "X-HTTP-Method-Override: DELETE", base + "/x") == "404"
    assert ask("-H", "Origin: http://evil.example", base) == "200"  # and no header that lets the page read it
    assert node.get("vservices") == []


def test_dns_answers_nobody_outside(node: Node, neighbour: Pod) -> None:
    """It listens on 127.0.0.1 alone: nobody's amplifier."""
    port = (node.run_dir / "dns_port").read_text()
    listening = node.host("ss", "-Huan", "sport", "=", f":{port}").ok() + node.host("ss", "-Htan").ok()
    assert f"127.0.0.1:{port}" in listening and f"0.0.0.0:{port}" not in listening
    asked = neighbour.run("dig", "+tries=1", "+time=1", "-p", port, f"@{NODE_IP}", "localhost")
    assert "status:" not in asked.out


def test_host_of_an_exposed_port_is_a_stranger(node: Node, mode: list[str]) -> None:
    """It is shown as what it is; and the app's other ports stay closed to it."""
    ip = node.fresh_ip()
    start_echo(node, *mode, "--expose", "7000:10970", name="open", ip=ip)
    script = "import socket; print(socket.create_connection(('127.0.0.1', 10970)).recv(999).decode())"
    assert json.loads(node.host(PYTHON, "-c", script).ok())["peer"] == "127.0.0.1"
