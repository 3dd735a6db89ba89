"""Web servers and clients, unmodified, both under `ax run`, with and without a namespace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo, start_nginx

CLIENT_IP = "2.2.2.2"
COMPILES = pytest.mark.timeout(300)
"""Go's first build on a machine compiles its standard library."""


def curl(node: Node, mode: list[str], url: str, *args: str) -> str:
    """What curl gets from `url`."""
    return node.run("--ip", CLIENT_IP, *mode, "curl", "-sS", "--max-time", "10", *args, url).ok()


def test_nginx_and_curl(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    nginx = start_nginx(node, *mode, name="web", ip=ip, workers=4)
    for _ in range(5):
        assert curl(node, mode, f"http://{ip}/") == "web\n"
    assert [line.split()[0] for line in nginx.access_log().splitlines()] == [CLIENT_IP] * 5


def test_nginx_as_proxy(node: Node, mode: list[str]) -> None:
    front, back = node.fresh_ip(), node.fresh_ip()
    origin = start_nginx(node, *mode, name="origin", ip=back)
    start_nginx(node, *mode, name="front", ip=front, port=8080, proxy_to=f"{back}:80")
    for _ in range(5):
        assert curl(node, mode, f"http://{front}:8080/") == "origin\n"
    assert {line.split()[0] for line in origin.access_log().splitlines()} == {front}


def test_nginx_reload(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    nginx = start_nginx(node, *mode, name="reload", ip=ip)
    assert curl(node, mode, f"http://{ip}/") == "reload\n"
    conf = nginx.folder / "nginx.conf"
    conf.write_text(conf.read_text().replace("location /", "location = /new { return 200 new; } location /"))
    nginx.process.popen.send_signal(1)  # SIGHUP: new workers take over the listening sockets
    node.wait(lambda: curl(node, mode, f"http://{ip}/new") == "new", "the new configuration")


def test_python_asyncio(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    start_echo(node, *mode, name="asyncio", ip=ip)
    argv = [PYTHON, str(PROGRAMS / "dial.py"), "one", ip, "7000"]
    out = node.run("--ip", CLIENT_IP, *mode, *argv).ok()
    assert f'"peername": ["{ip}", 7000]' in out
    assert f'"peer": "{CLIENT_IP}"' in out
    assert f'"sockname": ["{ip}", 7000]' in out


def test_python_http_server(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, PYTHON, "-m", "http.server", "8000")
    node.wait_service(ip, 8000)
    script = f"import urllib.request as r; print(r.urlopen('http://{ip}:8000/', timeout=10).status)"
    assert node.run(*mode, PYTHON, "-c", script).ok() == "200\n"


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_node(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, "node", str(PROGRAMS / "web.js"), "server", "3000")
    node.wait_service(ip, 3000)
    out = node.run(
        "--ip", CLIENT_IP, *mode, "node", str(PROGRAMS / "web.js"), "get", f"http://{ip}:3000/"
    ).ok()
    assert out == f"node at ::ffff:{ip} asked by ::ffff:{CLIENT_IP}\n"


@COMPILES
def test_go(node: Node, mode: list[str], go_web: Path) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, str(go_web), "server", ":8080")
    node.wait_service(ip, 8080)
    out = node.run("--ip", CLIENT_IP, *mode, str(go_web), "get", f"http://{ip}:8080/").ok()
    assert out.startswith(f"go at {ip}:8080 asked by {CLIENT_IP}:")


@COMPILES
def test_go_bound_to_its_address(node: Node, mode: list[str], go_web: Path) -> None:
    ip = node.fresh_ip()
    node.start("--ip", ip, *mode, str(go_web), "server", f"{ip}:8080")
    node.wait_service(ip, 8080)
    assert node.run(*mode, str(go_web), "get", f"http://{ip}:8080/").ok().startswith(f"go at {ip}:8080")


def test_java(node: Node, mode: list[str], java_classes: Path) -> None:
    ip = node.fresh_ip()
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", str(java_classes), "Web"]
    node.start("--ip", ip, *mode, *java, "server", "8081")
    node.wait_service(ip, 8081, timeout=40)
    out = node.run("--ip", CLIENT_IP, *mode, *java, "get", f"http://{ip}:8081/", timeout=40).ok()
    assert out == f"java asked by {CLIENT_IP}\n"


def test_modes_meet(node: Node) -> None:
    """A client in an empty namespace reaches a server in the node's, and the other way round."""
    first, second = node.fresh_ip(), node.fresh_ip()
    start_nginx(node, name="inside", ip=first)
    start_nginx(node, "--new-netns=false", name="outside", ip=second)
    assert curl(node, ["--new-netns=false"], f"http://{first}/") == "inside\n"
    assert curl(node, [], f"http://{second}/") == "outside\n"
