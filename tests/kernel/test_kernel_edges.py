"""The BPF programs at their edges: failed calls, ports of the kernel's choice, names, and ways around policy."""

# ruff: noqa: E501  (programs of one line a step)

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
from e2e.sandbox import wait_until
from kernel.driver import Driver
from kernel.test_kernel import ASK, ECHO, ask

from appswitch.interceptor import abi, cgroup
from appswitch.interceptor.events import AdmissionRefused, ListenerDown, ListenerUp, TableFull

NODE6 = "fd00::15"
UDP_SERVER = """
import socket
s = socket.socket(socket.{family}, socket.SOCK_DGRAM); s.bind(({address!r}, {port})); print("up")
while True: data, peer = s.recvfrom(99); print(data, peer[:2]); s.sendto(repr(peer[:2]).encode(), peer)
"""


def node6(driver: Driver) -> None:
    """Gives the node an IPv6 address that is not link-local."""
    driver.sandbox.run(["ip", "addr", "add", f"{NODE6}/64", "dev", "br0", "nodad"]).ok()


def reals(driver: Driver) -> dict[int, int]:
    """Real port by the app's port, of all that is served."""
    return {service.port: service.real_port for service in driver.kernel.services()}


def few_ports(driver: Driver) -> None:
    """Leaves the kernel two ephemeral ports to choose from."""
    driver.sandbox.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50001"]).ok()


def test_a_failed_bind_leaves_no_name(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80))
    code = """
import socket, time
s = socket.socket()
try: s.bind(('', 80))
except OSError as e: print(e.errno)
s.listen(); print(s.getsockname()[1] not in (0, 80)); time.sleep(9)
"""
    second = driver.serve(server, code)
    wait_until(
        lambda: second.output() == f"{errno.EADDRINUSE}\nTrue\n", "it listens on a port of the kernel's"
    )
    assert isinstance(ask(driver, client, "1.1.1.1", 80), list)
    second.stop()
    assert set(reals(driver)) == {80}


def test_bind_of_a_listener_changes_nothing(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = """
import socket
s = socket.socket(); s.listen()
try: s.bind(('', 80))
except OSError as e: print(e.errno)
"""
    assert driver.python(app, code).ok() == f"{errno.EINVAL}\n"
    assert driver.kernel.used_ports() == set()
    driver.serve(app, ECHO.format(address="", port=80))
    assert isinstance(ask(driver, app, "1.1.1.1", 80), list)


def test_ports_of_the_kernels_choice_go_with_their_socket(driver: Driver) -> None:
    app, other = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
for i in range(20):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_INET, kind); s.bind(('', 0))
        if kind == socket.SOCK_STREAM: s.listen()
        port = s.getsockname()[1]; s.close()
print(port)
s = socket.socket(); s.listen(); print(s.getsockname()[1])
"""
    port = int(driver.python(app, code).ok().split()[1])
    for name in "ports", "reals":
        assert driver.kernel._maps[name].items() == []
    # what was the app's is the host's now
    host = driver.sandbox.start(["python3", "-u", "-c", ECHO.format(address="10.0.2.15", port=port)])
    wait_until(lambda: isinstance(ask(driver, other, "10.0.2.15", port), list), "the host's program answers")
    host.stop()
    assert driver.kernel.forget(1) == []


def test_a_port_of_the_kernels_choice_that_the_app_has_already(driver: Driver) -> None:
    few_ports(driver)
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=50000))
    code = """
import socket
k = [socket.socket() for _ in range(2)]
for s in k: s.bind(('', 0)); s.listen()
print(sorted(s.getsockname()[1] for s in k))
"""
    assert driver.python(server, code).ok() == "[50000, 50001]\n"
    driver.sandbox.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50999"]).ok()
    assert isinstance(ask(driver, client, "1.1.1.1", 50000), list)
    assert driver.kernel.forget(1) == [40000]


def test_a_pool_port_that_equals_the_apps(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    driver.serve(app, UDP_SERVER.format(family="AF_INET", address="", port=40000))
    assert reals(driver) == {40000: 40000}
    assert driver.kernel.forget(1) == [40000]


def test_forget_leaves_what_became_anothers(driver: Driver) -> None:
    few_ports(driver)
    one, two, client = driver.app("1.1.1.1"), driver.app("2.2.2.2"), driver.app("3.3.3.3")
    driver.python(one, "import socket\nk = [socket.socket() for _ in range(2)]\nfor s in k: s.listen()")
    driver.serve(two, ECHO.format(address="", port=0))
    driver.sandbox.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=51000 51999"]).ok()
    [port] = reals(driver)
    driver.kernel.forget(1)
    assert isinstance(ask(driver, client, "10.0.2.15", port), list)


def test_the_source_port_of_a_client(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80).replace("peer[0]", "peer"))
    code = "import socket; s = socket.socket(); s.bind(('2.2.2.2', 5000)); s.connect(('1.1.1.1', 80)); print(s.recv(99).decode())"
    assert driver.python(client, code).ok() == "(('2.2.2.2', 5000), ('1.1.1.1', 80))\n"


def test_own_loopback_over_ipv6(driver: Driver) -> None:
    app, other = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
s = socket.socket(socket.AF_INET6); s.bind(('::1', 80)); s.listen()
c = socket.socket(socket.AF_INET6); c.connect(('::', 80)); a, peer = s.accept()
print(peer == c.getsockname(), a.getsockname()[:2], a.getpeername() == peer, c.getpeername()[:2])
u, v = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
u.bind(('::1', 53)); u.settimeout(5); v.settimeout(5)
v.sendto(b'question', ('::1', 53)); data, peer = u.recvfrom(99); u.sendto(b'answer', peer); print(*v.recvfrom(99), v.getsockname()[1] == peer[1])
v.connect(('::1', 53)); v.send(b'again'); u.sendto(b'and again', u.recvfrom(99)[1]); print(v.recv(99), v.getpeername()[:2])
"""
    assert driver.python(app, code).ok() == (
        "True ('::1', 80) True ('::1', 80)\n"
        "b'answer' ('::1', 53, 0, 0) True\n"
        "b'and again' ('::1', 53)\n"
    )  # fmt: skip
    driver.serve(app, UDP_SERVER.format(family="AF_INET6", address="::1", port=54))
    code = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('::1', 54)); s.send(b'x'); s.settimeout(5)\ntry: s.recv(9)\nexcept OSError as e: print(e.errno)"
    assert driver.python(other, code).ok() == f"{errno.ECONNREFUSED}\n"


def test_v6only_is_an_option_of_unbound_ipv6_sockets(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = """
import socket
def only(s, value):
    try: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, value)
    except OSError as e: print(e.errno)
s = socket.socket(socket.AF_INET6); only(s, 1); only(s, 0); s.bind(('::', 80)); only(s, 1); s.listen()
only(socket.socket(), 1)
try: socket.socket().setsockopt(socket.SOL_IP, 64, bytes(8000))  # IPT_SO_SET_REPLACE
except OSError as e: print(e.errno != 14)
c = socket.socket(); c.connect(('127.0.0.1', 80)); print('connected')
"""
    assert driver.python(app, code).ok() == f"{errno.EINVAL}\n{errno.ENOPROTOOPT}\nTrue\nconnected\n"
    assert driver.kernel.services() == []


@pytest.mark.parametrize(
    "protocol", ["socket.SOCK_STREAM, 132", "socket.SOCK_DGRAM, 136", "socket.SOCK_STREAM, 262"]
)
def test_protocols_that_no_hook_sees(driver: Driver, protocol: str) -> None:
    app = driver.app("1.1.1.1")
    code = (
        f"import socket\ntry: socket.socket(socket.AF_INET, {protocol})\nexcept OSError as e: print(e.errno)"
    )
    assert driver.python(app, code).ok() == f"{errno.EPROTONOSUPPORT}\n"
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)"
    assert driver.python(app, code).code == 0


def test_datagrams_that_no_decision_let_through(driver: Driver) -> None:
    """By broadcast and by the node's IPv6 address; a socket that once talked to the app changes nothing."""
    node6(driver)
    server = driver.app("1.1.1.1", "role=prod,role2=x")
    friend, other = driver.app("2.2.2.2", "role=prod"), driver.app("3.3.3.3", "role=test")
    process = driver.serve(server, UDP_SERVER.format(family="AF_INET6", address="::", port=53))
    real = reals(driver)[53]
    code = f"""
import socket
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.settimeout(5)
try: u.sendto(b'let through', ('::ffff:1.1.1.1', 53)); print(u.recv(99).decode())
except OSError as e: print(e.errno)
u.sendto(b'around', ({NODE6!r}, {real}))
for bound in False, True:
    b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if bound: b.bind(('', 7000))
    b.sendto(b'around', ('10.0.2.255', {real}))
"""
    assert driver.python(friend, code).ok().startswith("('::ffff:2.2.2.2', ")
    assert "let through" in process.output()
    assert driver.python(other, code).ok() == f"{errno.EACCES}\n"
    assert "around" not in process.output()
    driver.follow()
    assert len([event for event in driver.seen if isinstance(event, AdmissionRefused)]) == 6


def test_a_socket_that_dialled_before(driver: Driver) -> None:
    """What a failed dial left behind admits nothing elsewhere, and names nothing."""
    node6(driver)
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(
        server,
        ECHO.format(address="::", port=80).replace("socket.socket()", "socket.socket(socket.AF_INET6)"),
    )
    code = f"""
import errno, socket
def ports(text): open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write(text)
s, taken = socket.socket(socket.AF_INET6), socket.socket(socket.AF_INET6); s.settimeout(0.5)
ports('50000 50000'); taken.bind(('::', 0))
print(errno.errorcode[s.connect_ex(('::ffff:1.1.1.1', 80))])
ports('50000 50999')
print(errno.errorcode[s.connect_ex(({NODE6!r}, {reals(driver)[80]}))])
"""
    assert driver.python(client, code).ok() == "EADDRNOTAVAIL\nEAGAIN\n"
    host = f"import socket; s = socket.socket(socket.AF_INET6); s.bind(({NODE6!r}, 999)); s.listen(); print('up')\nwhile True: s.accept()"
    other = driver.sandbox.start(["python3", "-u", "-c", host])
    wait_until(lambda: other.output() == "up\n", "the host's server is up")
    code = f"""
import ctypes, socket
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    if kind == socket.SOCK_STREAM: k = socket.socket(socket.AF_INET6); k.bind(('::1', 80)); k.listen()
    s = socket.socket(socket.AF_INET6, kind); s.connect(('::1', 80))
    ctypes.CDLL(None).connect(s.fileno(), bytes(28), 28)  # AF_UNSPEC
    s.connect(({NODE6!r}, 999)); print(s.getpeername()[:2], s.getsockname()[0])
"""
    assert driver.python(client, code).ok() == f"('{NODE6}', 999) {NODE6}\n" * 2
    other.stop()


def test_the_names_of_udp_clients_that_follow_each_other_on_a_port(driver: Driver) -> None:
    few_ports(driver)
    server, *clients = driver.app("1.1.1.1"), driver.app("2.2.2.2"), driver.app("3.3.3.3")
    driver.serve(server, UDP_SERVER.format(family="AF_INET", address="", port=53))
    code = """
import socket
for _ in range(8): u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5); u.sendto(b'x', ('1.1.1.1', 53)); print(eval(u.recv(99))[0]); u.close()
"""
    for client, ip in zip(clients, ("2.2.2.2", "3.3.3.3"), strict=True):
        assert driver.python(client, code).ok() == f"{ip}\n" * 8


def test_a_udp_server_that_connects_to_its_clients(driver: Driver) -> None:
    """As DTLS and QUIC servers do, with a socket for each."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
def bound():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('', 53)); return s
s = bound(); print('up')
while True: peer = s.recvfrom(99)[1]; t = bound(); t.connect(peer); t.send(repr((t.getpeername() == peer, peer[0])).encode()); t.close()
"""
    driver.serve(server, code)
    for bind in "pass", "s.bind(('', 5000))", "s.connect(('1.1.1.1', 53))":
        code = f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); {bind}; s.sendto(b'x', ('1.1.1.1', 53)); print(*s.recvfrom(99))"
        assert driver.python(client, code).ok() == "b\"(True, '2.2.2.2')\" ('1.1.1.1', 53)\n"


def test_listeners_of_many_threads(driver: Driver) -> None:
    """Whoever comes and goes at once: the table ends as it began, and the events agree."""
    app = driver.app("1.1.1.1")
    code = """
import socket, threading
def churn(port):
    for i in range(60):
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('', port)); s.listen()
        if i % 3: s.shutdown(socket.SHUT_RDWR)
        d = s.dup(); s.close(); d.close()
ts = [threading.Thread(target=churn, args=(port,)) for port in (80, 80, 80, 81, 0, 0)]
for t in ts: t.start()
for t in ts: t.join()
"""
    driver.python(app, code).ok()
    driver.follow()
    last = {e.service.port: type(e) for e in driver.seen if isinstance(e, ListenerUp | ListenerDown)}
    assert len(last) > 100 and set(last.values()) == {ListenerDown}
    assert driver.kernel.services() == []
    assert len(driver.kernel.used_ports()) == 2


@pytest.mark.parametrize(
    "option",
    ["s.sendto(b'x', socket.MSG_FASTOPEN, to)", "s.setsockopt(6, 30, 1); s.connect(to); s.send(b'x')"],
)
def test_fast_open_is_decided(driver: Driver, option: str) -> None:
    driver.sandbox.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=1027"]).ok()
    server = driver.app("1.1.1.1", "role=prod")
    friend, other = driver.app("2.2.2.2", "role=prod"), driver.app("3.3.3.3", "role=test")
    driver.serve(server, ECHO.format(address="", port=80).replace("c.close()", "c.recv(9); c.close()"))
    code = ASK.replace("s.connect((ip, port))", f"to = ip, port; s.settimeout(None); {option}")
    code += f"print(*(x if isinstance(x, int) else x[1:] for x in (ask('1.1.1.1', 80), ask('127.0.0.1', {reals(driver)[80]}))))"
    assert driver.python(friend, code).ok() == "[['1.1.1.1', 80], \"('2.2.2.2', ('1.1.1.1', 80))\"] 111\n"
    assert driver.python(other, code).ok() == "13 111\n"


def test_an_apps_cgroup_is_never_below_another_apps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "user.slice/ax-1/job").mkdir(parents=True)
    monkeypatch.setattr(cgroup, "cgroup_root", lambda: tmp_path)
    for own in ("/user.slice/ax-1/job", "/user.slice/ax-1", "/user.slice"):
        monkeypatch.setattr(cgroup, "of_process", lambda _pid, own=own: own)
        made = cgroup.create(1, "2")
        assert made == tmp_path / "user.slice/ax-2"
        made.rmdir()


def test_a_connection_that_is_reset_before_accept_is_nobodys_loopback(driver: Driver) -> None:
    """The kernel has lost its port, by which its names are found; what it sent can still be read."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import select, socket, time
s = socket.socket(); s.bind(('', 80)); s.listen(); print("up"); poll = select.poll(); poll.register(s, 1)
poll.poll(); print('dialled', flush=True); time.sleep(0.3)
c, peer = s.accept(); print(peer[0], c.getsockname(), c.recv(9), flush=True)
"""
    process = driver.serve(server, code)
    dial = "import socket, struct; s = socket.socket(); s.setsockopt(1, 13, struct.pack('ii', 1, 0)); s.connect(('1.1.1.1', 80)); s.send(b'x'); s.close()"
    driver.python(client, dial).ok()
    wait_until(lambda: "x" in process.output(), "it reads")
    assert process.output() == "up\ndialled\n0.0.0.0 ('1.1.1.1', 80) b'x'\n"


def test_a_connect_with_another_family_changes_nothing(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = """
import ctypes, socket
s = socket.socket(); t = socket.socket(); t.bind(('', 80)); t.listen()
raw = bytes([99, 0]) + socket.htons(80).to_bytes(2, 'little') + socket.inet_aton('127.0.0.1') + bytes(8)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.connect(s.fileno(), raw, 16), ctypes.get_errno()); s.connect(('127.0.0.1', 80)); print(s.getpeername())
"""
    assert driver.python(app, code).ok() == f"-1 {errno.EAFNOSUPPORT}\n('127.0.0.1', 80)\n"


def test_udp_of_a_dual_stack_socket_that_is_connected(driver: Driver) -> None:
    """As Java's are: what it sends passes the hook of IPv4 with the address that connect() chose."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, UDP_SERVER.format(family="AF_INET", address="", port=53))
    code = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('::ffff:1.1.1.1', 53)); s.send(b'x'); print(eval(s.recv(99))[0])"
    assert driver.python(client, code).ok() == "2.2.2.2\n"


def test_two_apps_with_one_address_and_one_bound_udp_port(driver: Driver) -> None:
    """Natively there is no such thing: answers go to whichever of them sent last (docs/differences.md)."""
    server, one, two = driver.app("1.1.1.1"), driver.app("2.2.2.2"), driver.app("2.2.2.2")
    code = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print("up")
while True:
    first, second = s.recvfrom(99), s.recvfrom(99); assert first[1] == second[1] == ('2.2.2.2', 5000)
    for data, peer in first, second: s.sendto(b"answer to " + data, peer)
"""
    driver.serve(server, code)
    ask = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5000)); print("bound")
s.settimeout({wait}); s.sendto({name!r}, ('1.1.1.1', 53))
try:
    while True: print(s.recv(99).decode())
except TimeoutError: print("no more")
"""
    first = driver.serve(one, ask.format(name=b"one", wait=3))
    second = driver.serve(two, ask.format(name=b"two", wait=1))
    wait_until(lambda: "no more" in first.output() and "no more" in second.output(), "both have waited")
    assert first.output() == "bound\nno more\n"
    assert sorted(second.output().split("\n")) == ["", "answer to one", "answer to two", "bound", "no more"]


def test_flows_that_others_crowded_out(driver: Driver) -> None:
    """The table of flows forgets the least recently used of all apps: whoever goes on talking sees nothing of it."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print("up")
peer = s.recvfrom(9)[1]; s.sendto(b"answer", peer); s.recvfrom(9)
s.sendto(b"unasked", peer); print(s.recvfrom(9), peer[0])
"""
    process = driver.serve(server, code)
    talk = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('1.1.1.1', 53)); print(*s.recvfrom(99), flush=True); sys.stdin.readline()
s.sendto(b'y', ('1.1.1.1', 53)); print(*s.recvfrom(99), flush=True); s.sendto(b'z', ('1.1.1.1', 53))
"""
    other = driver.sandbox.start(["python3", "-c", talk], cgroup=client, stdin=subprocess.PIPE)
    wait_until(lambda: "answer" in other.output(), "it was answered")
    flows = driver.kernel._maps["flows"]
    assert len([flows.delete(key) for key in list(flows.keys())]) >= 3
    other.send("go on")
    wait_until(lambda: "b'z'" in process.output(), "the server heard the last one")
    assert other.output() == "b'answer' ('1.1.1.1', 53)\nb'unasked' ('1.1.1.1', 53)\n"
    assert process.output().startswith("up\n(b'z', ('2.2.2.2', ") and process.output().endswith(" 2.2.2.2\n")
    assert other.popen.stdin is not None
    other.popen.stdin.close()
    other.stop()


def test_flows_of_which_one_was_crowded_out(driver: Driver) -> None:
    """A client's port that comes again: what is known of it may have been forgotten in part."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, UDP_SERVER.format(family="AF_INET", address="", port=53))
    ask = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.setsockopt(socket.IPPROTO_IP, 51, (33333 << 16 | 33333).to_bytes(4, 'little'))
{how}; print(s.recvfrom(99)[1], s.getsockname()[1])
"""
    asks = "s.sendto(b'x', ('1.1.1.1', 53))", "s.connect(('1.1.1.1', 53)); s.send(b'x')"
    flows = driver.kernel._maps["flows"]
    for how in asks:
        assert driver.python(client, ask.format(how=how)).ok() == "('1.1.1.1', 53) 33333\n"
        known = list(flows.keys())
        for key in known:
            value = flows.get(key)
            flows.delete(key)
            assert driver.python(client, ask.format(how=how)).ok() == "('1.1.1.1', 53) 33333\n", (key, value)


def test_the_table_of_ports_is_full(driver: Driver) -> None:
    """Whoever filled it: this bind() fails and is told of; who has a port keeps it and is reached."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ECHO.format(address="", port=80))
    ports = driver.kernel._maps["ports"]
    mine = set(ports.keys())
    with pytest.raises(OSError, match="Argument list too long"):
        for number in range(300_000):
            ports.update(abi.PORT_KEY.pack(0x0E000000 | number, 1, 6, 0), bytes(abi.PORT.size))
    driver.kernel.read_events()
    bind = "import socket\ntry: socket.create_server(('', 81)); print('bound')\nexcept OSError as e: print(e.errno)"
    assert driver.python(client, bind).ok() == f"{errno.EADDRINUSE}\n"
    told = [event for event in driver.kernel.read_events() if isinstance(event, TableFull)]
    assert [(event.app, event.port) for event in told] == [(2, 81)]
    assert ask(driver, client, "1.1.1.1", 80)[2].startswith("('2.2.2.2'")
    for key in set(ports.keys()) - mine:
        ports.delete(key)
    assert driver.python(client, bind).ok() == "bound\n"
