"""The manual's examples, typed as it prints them (chapters 1 and 3)."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import pytest

from e2e.node import AX, Node
from e2e.sandbox import NODE_IP
from e2e.servers import PROGRAMS, PYTHON, start_echo, start_nginx

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


def answers(node: Node, *flags: str, ip: str, port: int = 7000, times: int = 40) -> Counter[str]:
    """Who answers `times` connections of one client."""
    out = node.run(*flags, *DIAL, "many", ip, str(port), str(times), "1").ok()
    seen = json.loads(out)
    return Counter({**seen["names"], **seen["errors"]})


def refusal(node: Node, *flags: str, ip: str, port: int = 7000) -> str:
    """The errno a client's connect() ends with."""
    text = node.run(*flags, *DIAL, "one", ip, str(port)).ok()
    return str(json.loads(text).get("errno", text))


def test_client_ip_is_preserved(node: Node, mode: list[str]) -> None:
    """1: `ax run --ip 2.2.2.2 curl -I 1.1.1.1`; nginx logs 2.2.2.2."""
    nginx = start_nginx(node, *mode, name="manual", ip="1.1.1.1")
    out = node.run("--ip", "2.2.2.2", *mode, "curl", "-sSI", "1.1.1.1").ok()
    assert out.startswith("HTTP/1.1 200 OK")
    assert node.run(*mode, "curl", "-sSI", "1.1.1.1").ok().startswith("HTTP/1.1 200 OK")
    first, second = nginx.access_log().splitlines()
    assert first.startswith("2.2.2.2 ")
    assert second.startswith(f"{NODE_IP} ")


def test_names(node: Node, mode: list[str]) -> None:
    """1.1: `ax run --name web …`, then `curl web`, with and without the domain."""
    node.start("--name", "web", *mode, PYTHON, str(PROGRAMS / "echo.py"), "named", "7000")
    node.wait(lambda: node.servers(), "the service")
    for name in ("web", "web.appswitch.local"):
        out = node.run(*mode, *DIAL, "one", name, "7000").ok()
        assert json.loads(out)["name"] == "named"
    assert "241." in out
    assert node.run(*mode, "curl", "-sS", "http://nobody:7000").code == 6  # could not resolve


def test_two_servers_on_one_address(node: Node, mode: list[str]) -> None:
    """1.2: no conflict, balanced."""
    ip = node.fresh_ip()
    start_echo(node, *mode, name="one", ip=ip)
    second = start_echo(node, *mode, name="two", ip=ip)
    seen = answers(node, *mode, ip=ip, times=200)
    assert set(seen) == {"one", "two"} and min(seen.values()) > 50
    second.stop()
    assert answers(node, *mode, ip=ip) == {"one": 40}


def test_labels(node: Node, mode: list[str]) -> None:
    """1.3: a client reaches only servers that share a label; a naked one reaches neither."""
    ip = node.fresh_ip()
    for role in ("prod", "test"):
        start_echo(node, "--labels", f"role={role}", *mode, name=role, ip=ip)
    assert answers(node, "--labels", "role=test", *mode, ip=ip) == {"test": 40}
    assert answers(node, "--labels", "role=prod,zone=x", *mode, ip=ip) == {"prod": 40}
    assert refusal(node, *mode, ip=ip) == "EACCES"
    start_echo(node, "--labels", "tier=web", *mode, name="web", ip=ip)
    assert set(answers(node, "--labels", "role=prod,tier=web", *mode, ip=ip)) == {"prod", "web"}


def test_vservice(node: Node, mode: list[str]) -> None:
    """3.1.2: an app without an address gets one by `ax create vservice`, and loses it by `ax delete`."""
    node.start(*mode, PYTHON, str(PROGRAMS / "echo.py"), "bare", "10000")
    node.wait_service(NODE_IP, 10000)
    create = [
        "create",
        "vservice",
        "--ip",
        "5.5.5.5",
        "--backends",
        NODE_IP,
        "--ports",
        "8000:10000",
        "myvsvc",
    ]
    assert node.ax(*create).ok() == "Service 'myvsvc' created successfully with IP '5.5.5.5'.\n"
    try:
        table = node.ax("get", "vservices").ok()
        assert (
            f"myvsvc  Random  5.5.5.5  [{{8000 10000}}] [{NODE_IP}]".split() == table.splitlines()[-1].split()
        )
        assert answers(node, *mode, ip="5.5.5.5", port=8000) == {"bare": 40}
        assert answers(node, *mode, ip="myvsvc", port=8000) == {"bare": 40}
        again = node.ax(*create)
        assert again.code != 0 and "myvsvc" in again.err
    finally:
        assert node.ax("delete", "vservice", "myvsvc").code == 0
    assert refusal(node, *mode, ip="5.5.5.5", port=8000) == "ENETUNREACH"


def test_round_robin(node: Node, mode: list[str]) -> None:
    """3.1.2: two apps behind one vservice take turns."""
    first, second = node.fresh_ip(), node.fresh_ip()
    start_echo(node, *mode, name="one", ip=first)
    start_echo(node, *mode, name="two", ip=second)
    backends = f"{first},{second}"
    create = ["--ip", "5.5.5.6", "--backends", backends, "--lbtype", "RoundRobin", "--ports", "80:7000"]
    node.ax("create", "vservice", *create, "turns").ok()
    try:
        assert answers(node, *mode, ip="5.5.5.6", port=80) == {"one": 20, "two": 20}
    finally:
        node.ax("del", "vservice", "turns").ok()


def test_service_table(node: Node, mode: list[str]) -> None:
    """4.3.2: a row a listening socket, gone with it."""
    ip = node.fresh_ip()
    echo = start_echo(node, *mode, name="row", ip=ip)
    heading, _, row = node.ax("get", "servers").ok().splitlines()
    assert heading.split() == ["NODEID", "CLUSTER", "APPID", "PROTO", "SERVICEADDR", "IPV4ADDR"]
    name, cluster, app, proto, service, real = row.split()
    assert (name, cluster, proto, service) == ("host0", "appswitch", "tcp", f"{ip}:7000")
    assert real.startswith(f"{NODE_IP}:4")
    assert app == node.get("apps")[0]["appid"]
    echo.stop()
    node.wait(lambda: not node.servers(), "the row goes")


def test_pool_port_is_closed_to_strangers(node: Node, mode: list[str]) -> None:
    """A host program that dials the real port gets no connection; the node's own programs are untouched."""
    ip = node.fresh_ip()
    start_echo(node, *mode, name="closed", ip=ip)
    real_port = node.servers()[0]["ipv4addr"].rsplit(":", 1)[1]
    for address in ("127.0.0.1", NODE_IP):
        begin = time.monotonic()
        text = node.host(*DIAL, "one", address, real_port, timeout=40).ok()
        assert "errno" in json.loads(text), text
        assert time.monotonic() - begin < 20
    assert json.loads(node.run(*mode, *DIAL, "one", ip, "7000").ok())["name"] == "closed"


def test_loopback_is_private(node: Node, mode: list[str]) -> None:
    """The node's loopback is out of reach, and so is an app's for the others."""
    node.host_start(PYTHON, str(PROGRAMS / "echo.py"), "host", "7001", "127.0.0.1")
    node.wait(lambda: "host" in node.host(*DIAL, "one", "127.0.0.1", "7001").out, "the host's server")
    assert refusal(node, *mode, ip="127.0.0.1", port=7001) == "ECONNREFUSED"
    node.start("--ip", "6.6.6.6", *mode, PYTHON, str(PROGRAMS / "echo.py"), "private", "7002", "127.0.0.1")
    node.wait(lambda: node.get("sockets") or node.servers(), "the private server")
    assert refusal(node, *mode, ip="6.6.6.6", port=7002) == "ECONNREFUSED"
    assert refusal(node, *mode, ip="127.0.0.1", port=7002) == "ECONNREFUSED"


def test_own_loopback_works(node: Node, mode: list[str]) -> None:
    script = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 7003)); s.listen(); "
        "print(s.getsockname()); c = socket.create_connection(('127.0.0.1', 7003), 5); "
        "print(c.getpeername(), s.accept()[1][0])"
    )
    out = node.run("--ip", "6.6.6.7", *mode, PYTHON, "-c", script).ok()
    assert out == "('127.0.0.1', 7003)\n('127.0.0.1', 7003) 127.0.0.1\n"


def test_host_programs_are_untouched(node: Node) -> None:
    """They bind, dial and resolve as before, on ports that apps use too."""
    ip = node.fresh_ip()
    start_echo(node, "--new-netns=false", name="app", ip=ip, port=7005)
    node.host_start(PYTHON, str(PROGRAMS / "echo.py"), "host", "7005")
    node.wait(lambda: node.host(*DIAL, "one", NODE_IP, "7005").out.count('"host"'), "the host's server")
    assert "ENETUNREACH" in node.host(*DIAL, "one", ip, "7005").ok()
    assert json.loads(node.run("--new-netns=false", *DIAL, "one", ip, "7005").ok())["name"] == "app"


def test_outside_is_direct(node: Node, mode: list[str]) -> None:
    """A host server on the node's address is reached as from the host; an unknown address has no route."""
    node.host_start(PYTHON, str(PROGRAMS / "echo.py"), "host", "7006", NODE_IP)
    node.wait(lambda: node.host(*DIAL, "one", NODE_IP, "7006").out.count('"host"'), "the host's server")
    assert refusal(node, *mode, ip="9.9.9.9", port=80) == "ENETUNREACH"
    assert refusal(node, *mode, ip="169.254.169.254", port=80) == "EACCES"


@pytest.mark.parametrize("way", ["explain"])
def test_explain(node: Node, way: str) -> None:
    ip = node.fresh_ip()
    start_echo(node, "--labels", "role=prod", name="explained", ip=ip)
    app = node.get("apps")[0]["appid"]
    out = node.ax(way, "--from", app, f"{ip}:7000").ok()
    assert app in out and "7000" in out


def test_expose(node: Node, mode: list[str]) -> None:
    """3.1.2, 4.2.4: an exposed port admits programs that are not under AppSwitch; the mesh uses the app's."""
    ip = node.fresh_ip()
    node.start("--ip", ip, "--expose", "8000:9999", *mode, PYTHON, "-m", "http.server", "8000")
    node.wait_service(ip, 8000)
    for address in (NODE_IP, "127.0.0.1"):
        assert "200 OK" in node.host("curl", "-sSI", "--max-time", "5", f"{address}:9999").ok()
    assert "200 OK" in node.run(*mode, "curl", "-sSI", "--max-time", "5", f"{ip}:8000").ok()


def test_without_root(node: Node) -> None:
    """3.1: sudo is not needed with --new-netns=false."""
    ip = node.fresh_ip()
    start_nginx(node, name="rootless", ip=ip)
    as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups", AX, "run", "--new-netns=false"]
    assert node.host(*as_nobody, "curl", "-sS", "--max-time", "5", ip).ok() == "rootless\n"
    assert node.host(*as_nobody, "whoami").ok() == "nobody\n"


LAUNCHER = """
import ctypes, json, os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
if sys.argv[2] == "safe":
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5); s.connect(sys.argv[1])
s.send(json.dumps({"version": 1, "new_netns": False, "command": ["sudo"]}).encode())
print(s.recv(9999).decode().split("\\n")[:2], open("/proc/self/cgroup").read().split("/ax-")[1:] != [])
"""


def test_no_setuid_program_in_an_ordinary_users_mesh(node: Node) -> None:
    """A launcher of one's own could exec a setuid program that would then be served by its caller's apps."""
    as_nobody = [sys.executable, "-c", LAUNCHER]
    socket = str(node.run_dir / "daemon.sock")
    assert node.host(*as_nobody, socket, "unsafe").ok() == "['error', 'code=77'] False\n"
    assert node.host(*as_nobody, socket, "safe").ok().startswith("['ok',")
    node.wait(lambda: node.get("apps") == [], "the app ends")
