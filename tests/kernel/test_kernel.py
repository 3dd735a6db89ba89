"""The BPF programs alone: what an app sees of its sockets, in the node's own network."""

# ruff: noqa: E501  (programs of one line a step)

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kernel.driver import Driver

from appswitch.errors import Exhausted, Unsupported
from appswitch.interceptor import kernel, libbpf
from appswitch.interceptor.events import AdmissionRefused, Denied, ListenerDown, ListenerUp, PoolEmpty
from appswitch.interceptor.kernel import PROGRAMS, Kernel
from appswitch.model import Backend, LbPolicy, PortMap, VService

VIP = IPv4Address("5.5.5.5")

ECHO = """
import socket
s = socket.socket(); s.bind(({address!r}, {port})); s.listen(64); print("up")
while True:
    c, peer = s.accept(); c.sendall(repr((peer[0], c.getsockname())).encode()); c.close()
"""
ASK = """
import socket
def ask(ip, port):
    s = socket.socket(); s.settimeout(5)
    try:
        s.connect((ip, port))
    except OSError as error:
        return error.errno
    with s:
        return [s.getsockname()[0], list(s.getpeername()), s.recv(100).decode()]
"""


def ask(driver: Driver, app: str, ip: str, port: int) -> object:
    out = driver.python(app, ASK + f"import json; print(json.dumps(ask({ip!r}, {port})))").ok()
    return json.loads(out)


def test_names_of_both_ends(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80))
    assert ask(driver, client, "1.1.1.1", 80) == [
        "2.2.2.2", ["1.1.1.1", 80], "('2.2.2.2', ('1.1.1.1', 80))"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ip", "port", "error"),
    [
        ("127.0.0.1", 80, 111),
        ("0.0.0.0", 80, 111),
        ("1.1.1.1", 81, 111),
        ("169.254.169.254", 80, 13),
        ("9.9.9.9", 80, 101),  # outside: dialled as it is, and the sandbox has no route
    ],
)
def test_refusals(driver: Driver, ip: str, port: int, error: int) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80))
    assert ask(driver, client, ip, port) == error


def test_labels_decide(driver: Driver) -> None:
    server = driver.app("1.1.1.1", "role=prod")
    prod, other = driver.app("2.2.2.2", "role=prod,tier=a"), driver.app("3.3.3.3", "role=test")
    driver.serve(server, ECHO.format(address="1.1.1.1", port=80))
    assert isinstance(ask(driver, prod, "1.1.1.1", 80), list)
    assert ask(driver, other, "1.1.1.1", 80) == 13
    driver.follow()
    denied = [event for event in driver.seen if isinstance(event, Denied)]
    assert [(event.app, str(event.destination.address), event.error) for event in denied] == [
        (3, "1.1.1.1", 13)
    ]


def test_loopback_is_private(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("1.1.1.1")
    private = "s.listen(); c = socket.socket(); c.connect(('127.0.0.1', 80)); a, p = s.accept();"
    code = f"import socket; s = socket.socket(); s.bind(('127.0.0.1', 80)); {private} print(p[0], c.getpeername())"
    assert driver.python(server, code).ok() == "127.0.0.1 ('127.0.0.1', 80)\n"
    driver.serve(server, ECHO.format(address="127.0.0.1", port=80))
    assert ask(driver, client, "127.0.0.1", 80) == 111
    assert ask(driver, client, "1.1.1.1", 80) == 111  # bound to loopback only


def test_two_servers_share_an_address_and_a_port(driver: Driver) -> None:
    one, two, client = driver.app("1.1.1.1"), driver.app("1.1.1.1"), driver.app("2.2.2.2")
    say = ECHO.replace("repr((peer[0], c.getsockname()))", "{name!r}")
    driver.serve(one, say.format(address="", port=80, name="one"))
    driver.serve(two, say.format(address="", port=80, name="two"))
    for follow in (False, True):  # as the programs alone know it, and as the daemon compiles it
        if follow:
            driver.follow()
        code = (
            ASK + "from collections import Counter\nprint(Counter(ask('1.1.1.1', 80)[2] for _ in range(400)))"
        )
        out = driver.python(client, code).ok()
        counts = eval(out, {"Counter": dict})
        assert sum(counts.values()) == 400 and all(140 < count < 260 for count in counts.values()), counts


def test_bind_as_native(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = """
import errno, socket
def bind(address, port, kind=socket.SOCK_STREAM, s=None, reuse=False):
    s = s or socket.socket(socket.AF_INET, kind)
    if reuse: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        s.bind((address, port))
    except OSError as error:
        return errno.errorcode[error.errno]
    keep.append(s)
    return s.getsockname()
keep = []
print(bind('', 80), bind('', 80), bind('', 80, socket.SOCK_DGRAM))
print(bind('1.1.1.1', 81), bind('', 82, s=keep[-1]), keep[-1].getsockname())
print(bind('', 83, reuse=True), bind('', 83, reuse=True), bind('', 83))
print(bind('', 0)[1] > 0, bind('9.9.9.9', 84))
"""
    assert driver.python(app, code).ok() == (
        "('0.0.0.0', 80) EADDRINUSE ('0.0.0.0', 80)\n"
        "('1.1.1.1', 81) EINVAL ('1.1.1.1', 81)\n"
        "('0.0.0.0', 83) ('0.0.0.0', 83) EADDRINUSE\n"
        "True EADDRNOTAVAIL\n"
    )


def test_listeners_are_counted(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = """
import socket
def listener():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('', 80)); s.listen(); return s
pair = [listener(), listener()]
for s in pair:
    c = socket.socket(); c.connect(('1.1.1.1', 80)); c.close(); s.listen(7)
    s.close()
"""
    driver.python(app, code).ok()
    driver.follow()
    kinds = [type(event) for event in driver.seen]
    assert kinds == [ListenerUp, ListenerDown]
    assert driver.kernel.services() == []
    assert len(driver.kernel.forget(1)) == 1 and driver.kernel.used_ports() == set()


def test_udp_unconnected_and_connected(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(
        server,
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print('up')\n"
        "while True: data, peer = s.recvfrom(99); s.sendto(peer[0].encode(), peer)",
    )
    code = """
import socket
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.settimeout(5); a.sendto(b'x', ('1.1.1.1', 53)); print(*a.recvfrom(99))
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.settimeout(5); b.connect(('1.1.1.1', 53)); b.send(b'x')
print(*b.recvfrom(99), b.getpeername())
c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); c.settimeout(5); c.sendto(b'x', ('::ffff:1.1.1.1', 53)); print(*c.recvfrom(99))
"""
    assert driver.python(client, code).ok() == (
        "b'2.2.2.2' ('1.1.1.1', 53)\n"
        "b'2.2.2.2' ('1.1.1.1', 53) ('1.1.1.1', 53)\n"
        "b'2.2.2.2' ('::ffff:1.1.1.1', 53, 0, 0)\n"
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.2.15"])
def test_strangers_are_not_admitted(driver: Driver, address: str) -> None:
    server = driver.app("1.1.1.1")
    driver.serve(server, ECHO.format(address="", port=80))
    [service] = driver.kernel.services()
    code = f"import socket; s = socket.socket(); s.settimeout(0.4); print(s.connect_ex(({address!r}, {service.real_port})))"
    assert driver.sandbox.run(["python3", "-c", code]).ok() == "11\n"  # EAGAIN: still trying
    driver.follow()
    [refused] = [event for event in driver.seen if isinstance(event, AdmissionRefused)][:1]
    assert str(refused.dialled) == address and refused.real_port == service.real_port and refused.app == 1


def test_a_real_port_counts_as_the_service_behind_it(driver: Driver) -> None:
    server = driver.app("1.1.1.1", "role=prod")
    prod, other = driver.app("2.2.2.2", "role=prod"), driver.app("3.3.3.3", "role=test")
    driver.serve(server, ECHO.format(address="", port=80))
    [service] = driver.kernel.services()
    assert isinstance(ask(driver, prod, "10.0.2.15", service.real_port), list)
    assert ask(driver, other, "10.0.2.15", service.real_port) == 13


def test_ipv6_sockets(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {only}); s.bind(('::', {port})); s.listen()
c = socket.socket(socket.AF_INET6); c.connect(('::1', {port})); a, p = s.accept(); print(p[0], c.getpeername()[:2], flush=True)
while True: c, peer = s.accept(); c.sendall(repr((peer[0], c.getsockname()[:2])).encode()); c.close()
"""
    for port, only in ((80, 0), (81, 1)):
        driver.serve(server, code.format(port=port, only=only))
        seen = ask(driver, client, "1.1.1.1", port)
        assert seen == ["2.2.2.2", ["1.1.1.1", port], f"('::ffff:2.2.2.2', ('::ffff:1.1.1.1', {port}))"]
    out = driver.python(
        client, "import socket; print(socket.socket(socket.AF_INET6).connect_ex(('::1', 80)))"
    )
    assert out.ok() == "111\n"


def test_multipath_tcp_is_not_there(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    out = driver.python(
        app, "import socket\ntry: socket.socket(2, 1, 262)\nexcept OSError as e: print(e.errno)"
    )
    assert out.ok() == "93\n"


def test_an_empty_pool_is_that_apps_error(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    assert len(driver.kernel.take_ports()) == 200
    out = driver.python(
        app, "import socket\ntry: socket.socket().bind(('', 80))\nexcept OSError as e: print(e.errno)"
    )
    assert out.ok() == "98\n"
    driver.follow()
    assert [type(event) for event in driver.seen] == [PoolEmpty]


def test_a_full_queue_refuses_ports(driver: Driver) -> None:
    with pytest.raises(Exhausted, match="stock of ports is full"):
        driver.kernel.add_ports(range(40000, 80000))


def test_the_next_kernel_finds_everything(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80))
    before = driver.kernel.services()
    driver.kernel.close()
    assert isinstance(ask(driver, client, "1.1.1.1", 80), list)  # with no daemon at all
    driver.kernel = Kernel.open(driver.pins, clean=False)
    assert driver.kernel.services() == before
    dump = driver.kernel.dump()
    driver.planner.restore(dump, 0.0)
    del dump
    driver.kernel.attach(driver.sandbox.cgroup / server, 1, 0, driver.registry.app(1).ip, 0)
    assert isinstance(ask(driver, client, "1.1.1.1", 80), list)


def test_the_hosts_own_programs_are_untouched(driver: Driver) -> None:
    driver.app("1.1.1.1")
    shown = subprocess.run(
        ["bpftool", "cgroup", "tree", "-j"], capture_output=True, timeout=20, check=False
    ).stdout
    attached = [entry["cgroup"] for entry in json.loads(shown or b"[]") if entry.get("programs")]
    own = str(driver.sandbox.cgroup)
    ours, others = (
        [path for path in attached if path.startswith(own)],
        [path for path in attached if not path.startswith(own)],
    )
    assert ours and all("/app-" in path for path in ours), ours
    ax = ("/app-", "/ax-", "appswitch-holder")
    assert all("/sandbox-" in path and any(word in path for word in ax) for path in others), (
        others
    )  # other tests'


def test_programs_replace_their_like(driver: Driver) -> None:
    """A daemon attaches anew to what it, or an earlier one, has attached to: each kind once."""
    cgroup = driver.sandbox.cgroup / driver.app("1.1.1.1")
    descriptor = os.open(cgroup, os.O_RDONLY)
    for _ in range(2):
        driver.kernel.attach(cgroup, 1, 0, IPv4Address("1.1.1.1"), 0)
        found = {kind: libbpf.attached(descriptor, kind) for kind in PROGRAMS.values()}
        assert all(len(programs) == 1 for programs in found.values()), found
    os.close(descriptor)


def test_without_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unsupported, match="needs root"):
        Kernel.open(tmp_path, clean=False)


def test_programs_that_the_kernel_refuses(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the program and the verifier's reason: which kernels lack what is found by it."""
    broken = tmp_path / "node.bpf.o"
    broken.write_bytes(kernel.OBJECT.read_bytes().replace(b"GPL\0", b"BSD\0", 1))
    monkeypatch.setattr(kernel, "OBJECT", broken)
    with pytest.raises(Unsupported, match=r"load node.bpf.o: ax_\w+: .*GPL.*Linux 6.1 or newer"):
        Kernel.open(driver.pins / "other", clean=False)
    assert not any((driver.pins / "other").iterdir())


def test_round_robin_is_exact_and_goes_on_over_a_change(driver: Driver) -> None:
    servers = [driver.app(f"1.1.1.{number}") for number in (1, 2, 3)]
    client = driver.app("2.2.2.2")
    say = ECHO.replace("repr((peer[0], c.getsockname()))", "{name!r}")
    for number, server in enumerate(servers):
        driver.serve(server, say.format(address="", port=80, name=str(number)))

    def create(count: int) -> None:
        backends = tuple(Backend(IPv4Address(f"1.1.1.{number}")) for number in range(1, count + 1))
        driver.registry.create_vservice(
            VService("v", (VIP,), (PortMap(80, 80),), backends, LbPolicy.ROUND_ROBIN)
        )

    def dialled(times: int) -> str:
        return driver.python(
            client, ASK + f"print(*(ask('5.5.5.5', 80)[2] for _ in range({times})), sep='')"
        ).ok()

    create(3)
    driver.write()
    assert dialled(7) == "0120120\n"
    driver.registry.delete_vservice("v")
    create(2)
    driver.write()
    assert dialled(4) == "1010\n"  # the eighth connection
