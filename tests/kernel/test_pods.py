"""The BPF programs of apps with a network of their own: pods on a bridge, in namespaces of their own."""

# ruff: noqa: E501  (programs of one line a step)

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest
from e2e.pods import Pod
from e2e.sandbox import wait_until
from kernel.driver import NODE_IP, Driver
from kernel.test_kernel import ASK, ECHO, VIP

from appswitch.interceptor.events import AdmissionRefused, ListenerDown, ListenerUp
from appswitch.model import Backend, PortMap, VService

A, B, C = "10.0.2.21", "10.0.2.22", "10.0.2.23"
UDP_ECHO = """
import socket
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(({address!r}, {port})); print("up")
while True:
    data, peer = s.recvfrom(100); s.sendto(data + b" from " + peer[0].encode(), peer)
"""
UDP_ASK = """
import socket
s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5)
def ask(ip, port, connect):
    if connect:
        s.connect((ip, port)); s.send(b"hi")
        return [s.recv(100).decode(), list(s.getpeername())]
    s.sendto(b"hi", (ip, port)); data, peer = s.recvfrom(100)
    return [data.decode(), list(peer)]
"""
OWN_LOOPBACK = """
import socket
listener = socket.create_server(("127.0.0.1", 5000))
for _ in range(9):
    client = socket.create_connection(("127.0.0.1", 5000)); listener.accept()[0].close(); client.close()
"""


def ask(pod: Pod, ip: str, port: int) -> object:
    return json.loads(pod.python(ASK + f"import json; print(json.dumps(ask({ip!r}, {port})))").ok())


def ask_from(driver: Driver, app: str, ip: str, port: int) -> object:
    return json.loads(driver.python(app, ASK + f"import json; print(json.dumps(ask({ip!r}, {port})))").ok())


def test_pod_to_pod_by_a_virtual_address(driver: Driver) -> None:
    server, client = driver.pod("1.1.1.1", own=A), driver.pod("2.2.2.2", own=B)
    server.serve(ECHO.format(address="", port=80))
    assert ask(client, "1.1.1.1", 80) == [B, ["1.1.1.1", 80], f"('{B}', ('{A}', 80))"]
    assert ask(client, A, 80) == [B, [A, 80], f"('{B}', ('{A}', 80))"]
    assert ask(server, "1.1.1.1", 80) == [A, ["1.1.1.1", 80], f"('{A}', ('{A}', 80))"]
    assert ask(client, "1.1.1.1", 81) == 111
    assert ask(client, A, 81) == 111


def test_policy_holds_at_the_virtual_and_the_real_address(driver: Driver) -> None:
    server, client = driver.pod("1.1.1.1", "role=a", own=A), driver.pod(B, "role=b")
    server.serve(ECHO.format(address="", port=80))
    assert ask(client, "1.1.1.1", 80) == 13
    assert ask(client, A, 80) == 13


def test_a_vservice_in_front_of_pods_and_strangers(driver: Driver) -> None:
    server, client, stranger = driver.pod(A), driver.pod(B), driver.pod(C, attach=False)
    for pod in (server, stranger):
        pod.serve(ECHO.format(address="", port=80))
    backends = (Backend(IPv4Address(A)), Backend(IPv4Address(C)))
    driver.registry.create_vservice(VService("v", (VIP,), (PortMap(8000, 80),), backends))
    driver.write()
    answers = {json.dumps(ask(client, str(VIP), 8000)) for _ in range(20)}
    assert answers == {json.dumps([B, [str(VIP), 8000], f"('{B}', ('{ip}', 80))"]) for ip in (A, C)}


def test_a_stranger_is_admitted_and_sees_the_pod(driver: Driver) -> None:
    server, stranger = driver.pod("1.1.1.1", own=A), driver.pod(C, attach=False)
    server.serve(ECHO.format(address="", port=80))
    assert ask(stranger, A, 80) == [C, [A, 80], f"('{C}', ('{A}', 80))"]


def test_loopback_stays_the_pods_own(driver: Driver) -> None:
    pod, other = driver.pod(A), driver.pod(B)
    pod.serve(ECHO.format(address="127.0.0.1", port=80))
    assert ask(pod, "127.0.0.1", 80) == ["127.0.0.1", ["127.0.0.1", 80], "('127.0.0.1', ('127.0.0.1', 80))"]
    assert ask(pod, "0.0.0.0", 80) == ["127.0.0.1", ["127.0.0.1", 80], "('127.0.0.1', ('127.0.0.1', 80))"]
    assert ask(other, A, 80) == 111
    driver.follow()
    assert not [event for event in driver.seen if isinstance(event, ListenerUp)]


def test_node_and_pods_reach_each_other(driver: Driver) -> None:
    pod, node = driver.pod("1.1.1.1", own=A), driver.app("2.2.2.2")
    pod.serve(ECHO.format(address="", port=80))
    driver.serve(node, ECHO.format(address="", port=80))
    assert ask_from(driver, node, "1.1.1.1", 80) == [
        "2.2.2.2",
        ["1.1.1.1", 80],
        f"('{NODE_IP}', ('{A}', 80))",
    ]
    assert ask(pod, "2.2.2.2", 80) == [A, ["2.2.2.2", 80], f"('{A}', ('2.2.2.2', 80))"]


def test_policy_between_node_and_pods(driver: Driver) -> None:
    pod, node, stranger = (
        driver.pod(A, "role=a"),
        driver.app("2.2.2.2", "role=b"),
        driver.pod(C, attach=False),
    )
    pod.serve(ECHO.format(address="", port=80))
    driver.serve(node, ECHO.format(address="", port=80))
    driver.follow()
    assert ask_from(driver, node, A, 80) == 13
    assert ask(pod, "2.2.2.2", 80) == 13
    real = next(each.real_port for each in driver.registry.snapshot.services if each.app == 2)
    assert ask(pod, str(NODE_IP), real) == 13
    assert (
        stranger.python(
            f"import socket; s = socket.socket(); s.settimeout(1); print(s.connect_ex(('{NODE_IP}', {real})))"
        ).ok()
        == "11\n"
    )


@pytest.mark.parametrize("connect", [True, False])
@pytest.mark.parametrize(("server", "client"), [("pod", "pod"), ("pod", "node"), ("node", "pod")])
def test_datagrams(driver: Driver, server: str, client: str, connect: bool) -> None:
    script = UDP_ASK + f"import json; print(json.dumps([ask('1.1.1.1', 53, {connect}) for _ in range(3)]))"
    serve = UDP_ECHO.format(address="", port=53)
    if server == "pod":
        driver.pod("1.1.1.1", own=A).serve(serve)
    else:
        driver.serve(driver.app("1.1.1.1"), serve)
    if client == "pod":
        out = driver.pod("2.2.2.2", own=B).python(script).ok()
    else:
        out = driver.python(driver.app("2.2.2.2"), script).ok()
    who = B if client == "pod" else str(NODE_IP)
    assert json.loads(out) == [[f"hi from {who}", ["1.1.1.1", 53]]] * 3


def test_listeners_come_and_go(driver: Driver) -> None:
    first, second = driver.pod("1.1.1.1", own=A), driver.pod("2.2.2.2", own=B)
    for pod in (first, second):  # the same port, twice: each is its own network's
        pod.python(
            "import socket; s = socket.socket(); s.bind(('', 80)); s.listen(); t = socket.socket(); t.bind(('', 0)); u = socket.socket(type=2); u.bind(('', 53))"
        ).ok()
    driver.follow()
    ups = [
        (e.service.app, int(e.service.protocol), e.service.port, e.service.real_port)
        for e in driver.seen
        if isinstance(e, ListenerUp)
    ]
    downs = [
        (e.service.app, int(e.service.protocol), e.service.port, e.service.real_port)
        for e in driver.seen
        if isinstance(e, ListenerDown)
    ]
    assert ups == downs == [(1, 6, 80, 80), (1, 17, 53, 53), (2, 6, 80, 80), (2, 17, 53, 53)]
    assert not driver.kernel.services() and not driver.kernel._maps["served"].items()


def test_detached_is_as_before(driver: Driver) -> None:
    pod = driver.pod("1.1.1.1", own=A)
    pod.serve(ECHO.format(address="", port=80))
    client = driver.pod(B)
    assert isinstance(ask(client, "1.1.1.1", 80), list)
    driver.kernel.detach(client.cgroup)
    assert ask(client, "1.1.1.1", 80) == 101
    assert isinstance(ask(client, A, 80), list)
    assert driver.kernel.forget(1) == []
    assert not driver.kernel.services()


SHARED = """
import socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(("", 80)); s.listen(64); print("up")
while True:
    c, _ = s.accept(); c.sendall({name!r}); c.close()
"""
MANY = """
import socket
found = []
for _ in range(16):
    s = socket.socket(); s.settimeout(0.3)
    try:
        s.connect(("1.1.1.1", 80)); found.append(s.recv(10).decode())
    except TimeoutError:
        found.append("refused")
    s.close()
print(*sorted(set(found)))
"""


def test_let_through_to_another_at_the_same_address(driver: Driver) -> None:
    """Two containers of one pod share its address, and here a port: who may dial one is not the other's."""
    pod, client = driver.pod("1.1.1.1", "role=a", own=A), driver.pod("3.3.3.3", "role=a", own=B)
    pod.serve(SHARED.format(name=b"first"))
    side = driver.sandbox.cgroup / "side"
    side.mkdir()
    driver.attach(pod, "2.2.2.2", "role=b", side)
    argv = [
        "nsenter",
        f"--net=/proc/{pod.init.pid}/ns/net",
        "python3",
        "-u",
        "-c",
        SHARED.format(name=b"second"),
    ]
    second = driver.sandbox.start(argv, cgroup="side")
    wait_until(lambda: "up" in second.output(), "the second serves")
    assert client.python(MANY).ok() == "first refused\n"
    driver.follow()
    assert {event.app for event in driver.seen if isinstance(event, AdmissionRefused)} == {3}
    second.stop()
    assert client.python(MANY).ok() == "first\n"


def test_what_ends_with_a_pod(driver: Driver) -> None:
    """Its address is another's next: what it said by UDP admits nobody, and its connections were all counted."""
    pod, server = driver.pod("1.1.1.1", own=A), driver.app(str(NODE_IP))
    pod.python(OWN_LOOPBACK).ok()
    assert all(count.opened == count.ended for count in driver.kernel.counters.read().values())
    driver.serve(server, UDP_ECHO.format(address="", port=5353))
    say = UDP_ASK + f"print(ask('{NODE_IP}', {{port}}, False))"
    assert "from" in pod.python(say.format(port=5353)).ok()
    (real,) = (service.real_port for service in driver.kernel.services() if service.port == 5353)
    driver.kernel.detach(pod.cgroup)
    driver.kernel.forget(1)
    assert pod.python(say.replace("settimeout(5)", "settimeout(1)").format(port=real)).code != 0
