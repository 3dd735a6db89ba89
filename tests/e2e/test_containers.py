"""`ax run` in containers: an image without Python, no network, no privilege."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from e2e.containers import Containers
from e2e.node import Node
from e2e.sandbox import NODE_IP, wait_until
from e2e.servers import nginx_argv

WEB = ("httpd", "-f", "-p", "80", "-h", "/www")
PAGE = "from a container\n"
PYTHON = "/usr/bin/python3"


@pytest.fixture
def containers(node: Node) -> Iterator[Containers]:
    if not shutil.which("runc"):
        pytest.skip("needs runc")
    containers = Containers(node)
    yield containers
    containers.close()


def test_server_and_client(node: Node, containers: Containers) -> None:
    """The manual's line, by address and by name; containers, and the node's own apps."""
    ip = node.fresh_ip()
    containers.start("web", "--ip", ip, "--name", "web", *WEB)
    node.wait_service(ip, 80)
    for url in (f"http://{ip}", "http://web", "http://web.appswitch.local"):
        assert containers.ax("wget", "-qO-", url).ok() == PAGE
    assert containers.ax("--new-netns=false", "wget", "-qO-", "http://web").ok() == PAGE
    assert containers.ax("wget", "-qO-", "http://web", uid=1000).ok() == PAGE
    assert node.run("curl", "-sS", "http://web").ok() == PAGE
    assert containers.exec("web", "/usr/bin/ax", "run", "wget", "-qO-", "http://web").ok() == PAGE
    # what is not under ax has no network, and loopback is nobody's but the app's own
    assert containers.run("wget", "-qO-", f"http://{ip}").code
    assert "Connection refused" in containers.ax("wget", "-qO-", "http://127.0.0.1").err


def test_labels_and_balance(node: Node, containers: Containers) -> None:
    ip = node.fresh_ip()
    for name in ("one", "two"):
        containers.start(name, "--ip", ip, "--labels", "role=prod", *WEB)
    node.wait_service(ip, 80, 2)
    assert containers.ax("--labels", "role=prod", "wget", "-qO-", f"http://{ip}").ok() == PAGE
    refused = containers.ax("--labels", "role=test", "wget", "-qO-", f"http://{ip}")
    assert refused.code and "Permission denied" in refused.err


@pytest.mark.parametrize(
    "resolv",
    [
        None,
        "nameserver 127.0.0.11\n",
        "search x\nnameserver 10.96.0.10\n",
        "nameserver 169.254.169.253\n",
        f"nameserver {NODE_IP}\nnameserver 9.9.9.9\n",
    ],
)
def test_names_by_whatever_nameserver(node: Node, containers: Containers, resolv: str | None) -> None:
    """Nothing may be mounted in there: the file stays as it is, and who is asked does not matter."""
    containers.start("web", "--name", "web", *WEB)
    wait_until(node.servers, "httpd listens")
    look = "cat /etc/resolv.conf 2>/dev/null; wget -qO- http://web; nslookup -type=a web.appswitch.local"
    out = containers.ax("sh", "-c", look, resolv=resolv).ok()
    assert out.startswith((resolv or "") + PAGE)
    assert "Address: 241." in out
    # unless that is not wanted
    assert containers.ax("--dns-override=false", "wget", "-qO-", "http://web", resolv=resolv).code


ADDRINFO = """
import json, socket, sys
print(json.dumps(sorted({x[4][0] for x in socket.getaddrinfo(
    "web", 80, socket.AF_INET, 0, 0, socket.AI_ADDRCONFIG)})))
"""


ASYNCIO = """
import asyncio
async def main():
    reader, writer = await asyncio.open_connection("web", 80)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print((await reader.read()).decode())
    writer.close()
asyncio.run(main())
"""


def test_glibc(node: Node, containers: Containers) -> None:
    """nginx as server, curl and Python as clients; ADDRCONFIG finds the app's address on lo."""
    ip = node.fresh_ip()
    folder = node.base / "container-nginx"
    argv = nginx_argv(folder, "nginx in a container\n")
    nginx = containers.start("nginx", "--ip", ip, "--name", "web", *argv, host_programs=True)
    wait_until(lambda: nginx.popen.poll() is not None or node.servers(), "nginx listens")
    assert node.servers(), nginx.output()
    page = containers.ax("curl", "-sS", "http://web", "http://web", host_programs=True).ok()
    assert page == "nginx in a container\n" * 2
    assert "nginx in a container" in containers.ax(PYTHON, "-c", ASYNCIO, host_programs=True).ok()
    found = containers.ax("--ip", "2.2.2.2", PYTHON, "-c", ADDRINFO, host_programs=True).ok()
    assert json.loads(found) == [ip]
    shown = containers.ax("--ip", "2.2.2.2", "ip", "-4", "-br", "address", host_programs=True).ok()
    assert shown.split() == ["lo", "UNKNOWN", "127.0.0.1/8", "2.2.2.2/32"]
    assert {line.split()[0] for line in (folder / "access.log").read_text().splitlines()} == {"10.0.2.15"}
    shutil.rmtree(folder)


def test_a_user_namespace(node: Node, containers: Containers) -> None:
    """docker's --userns-remap, rootless podman: its root is an ordinary user of the host's."""
    containers.start("web", "--name", "web.100000", *WEB, user_namespace=True)
    node.wait(node.servers, "the server listens", 20)
    (app,) = node.get("apps")
    assert app["user"] == 100_000
    assert containers.ax("wget", "-qO-", "http://web.100000", user_namespace=True).ok() == PAGE
    refused = containers.ax("--expose", "80:8088", "true", user_namespace=True)
    assert (refused.code, "only root" in refused.err) == (77, True)


def test_below_the_containers_cgroup(node: Node, containers: Containers) -> None:
    """Its limits and its accounting are the app's; with it goes everything."""
    containers.start("web", "--ip", node.fresh_ip(), *WEB)
    wait_until(node.servers, "httpd listens")
    (app,) = node.get("apps")
    assert app["cgroup"] == f"{containers.cgroup('web')}/ax-{app['appid']}"
    # with an empty namespace the launch does not wait until its process has entered
    inside = containers.cgroup_path("web") / f"ax-{app['appid']}/cgroup.procs"
    wait_until(lambda: str(app["pid"]) in inside.read_text().split(), "the app's process is in its cgroup")
    containers.remove("web")
    wait_until(lambda: not node.get("apps"), "the app ends with its container")
    assert not node.servers()


def test_a_capability_over_the_network_is_not_injected_into(node: Node, containers: Containers) -> None:
    """With CAP_NET_ADMIN the node's sockets in the container would be a way to the node's interfaces."""
    for more in ({}, {"uid": 1000}, {"user_namespace": True}):
        result = containers.ax("true", extra=("CAP_NET_ADMIN",), **more)
        refused = not more  # the others have it in name, or over nothing of the node's
        assert (result.code, "CAP_NET_ADMIN" in result.err) == ((77, True) if refused else (0, False)), result


def test_user(node: Node, containers: Containers) -> None:
    """The image's, whom the node does not know or knows by another number."""
    for name in ("alice", "1000"):
        assert containers.ax("--user", name, "id").ok().startswith("uid=1000(alice) gid=1000")
    for name in ("nobody", "1001"):
        unknown = containers.ax("--user", name, "true")
        assert (unknown.code, unknown.err) == (65, f"ax run: --user {name}: there is no such user here\n")
    other = containers.ax("--user", "alice", "true", uid=1001)
    assert (other.code, "only root" in other.err) == (77, True)


def test_ax_run_within_ax_run(node: Node, containers: Containers) -> None:
    """The inner one has its own address and labels, in the same place without a network."""
    ip = node.fresh_ip()
    containers.start("web", "--ip", ip, "--labels", "role=prod", *WEB)
    node.wait_service(ip, 80)
    inner = f"/usr/bin/ax run --labels role=prod wget -qO- http://{ip}; wget -qO- http://{ip}"
    result = containers.ax("--labels", "role=test", "sh", "-c", inner)
    assert result.out == PAGE and "Permission denied" in result.err


@pytest.mark.parametrize("extra", [("CAP_SYS_ADMIN",), ("CAP_SYS_ADMIN", "CAP_NET_ADMIN")])
def test_more_rights(node: Node, containers: Containers, extra: tuple[str, ...]) -> None:
    """It makes what it may of the app's namespaces; the run directory may be anywhere."""
    containers.start("web", "--name", "web", *WEB)
    wait_until(node.servers, "httpd listens")
    # nothing to mount over: names are known all the same
    assert containers.ax("wget", "-qO-", "http://web", extra=extra).ok() == PAGE
    look = "wget -qO- http://web; cat /etc/resolv.conf; ip -4 address show dev lo up"
    out = containers.ax("--ip", "2.2.2.2", "sh", "-c", look, extra=extra, resolv="nameserver 9.9.9.9\n").ok()
    assert out.startswith(PAGE) and "nameserver 241.255.255.53" in out and "2.2.2.2/32" in out


def test_what_is_missing_is_named(node: Node, containers: Containers) -> None:
    empty = containers.base / "empty"
    empty.mkdir()
    missing = containers.ax("true", run_dir=empty)
    assert (missing.code, "no daemon at /var/run/appswitch/daemon.sock" in missing.err) == (69, True)
    empty.chmod(0o700)
    closed = containers.ax("true", run_dir=empty, uid=1000)
    assert (closed.code, "daemon.sock: Permission denied (its directory" in closed.err) == (77, True)
    other = containers.run("/usr/bin/ax", "get", "apps")
    assert (other.code, other.err) == (69, "ax: only 'ax run' works here: no Python beside /usr/bin/ax\n")


def test_a_container_with_a_network(node: Node, containers: Containers) -> None:
    """`ax run` does not guess: it says what the ways are."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link add x up type bridge; echo; cat"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        netns = f"/proc/{holder.pid}/ns/net"
        default = containers.ax("true", netns=netns)
        without = containers.ax("--new-netns=false", "true", netns=netns)
        holder.kill()
        interface = containers.ax("--interface", "eth0", "true")
    assert (default.code, "cannot make a network namespace" in default.err) == (77, True)
    assert (interface.code, "leave --interface out" in interface.err) == (77, True)
    assert (without.code, "the caller has another network namespace" in without.err) == (71, True)


def test_restart_of_the_daemon(own_node: Node) -> None:
    """The container has the directory, not the old socket: it finds the next daemon, and its app goes on."""
    containers = Containers(own_node)
    try:
        containers.start("web", "--ip", "1.1.1.1", "--name", "web", *WEB)
        own_node.wait_service("1.1.1.1", 80)
        own_node.stop_daemon()
        assert containers.ax("true").code == 69
        own_node.start_daemon()
        assert containers.ax("wget", "-qO-", "http://web").ok() == PAGE
        assert containers.exec("web", "/usr/bin/ax", "run", "wget", "-qO-", "http://1.1.1.1").ok() == PAGE
    finally:
        containers.close()
