"""What programs' own test suites found (tests/oracle): an app's sockets behave as the kernel's own.

Each program here prints the same with and without AppSwitch; the expectation is what it prints without.
"""

# ruff: noqa: E501  (programs of one line a step)

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from e2e.sandbox import wait_until
from kernel.driver import Driver

from appswitch.interceptor.events import Crowded, ListenerDown, ListenerUp
from appswitch.model import Protocol

UDP = """
import socket
def udp(family, address=None):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(3)
    if address is not None: s.bind(address)
    return s
def sender(answer): return answer[1][0], answer[1][1]
"""


def same_as_native(driver: Driver, code: str) -> str:
    """What the program prints, the same as an app of the mesh and outside of it."""
    native = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    inside = driver.python(driver.app("1.1.1.1"), code)
    assert native.stdout and inside.ok() == native.stdout, native.stderr
    return native.stdout


@pytest.mark.parametrize(
    ("family", "address", "dialled"),
    [
        ("AF_INET", "127.0.0.1", "127.0.0.1"),
        ("AF_INET", "", "127.0.0.1"),
        ("AF_INET", "", "0.0.0.0"),
        ("AF_INET", "127.0.0.2", "127.0.0.2"),
        ("AF_INET6", "::1", "::1"),
        ("AF_INET6", "::", "::1"),
        ("AF_INET6", "::", "::"),
        ("AF_INET6", "::", "::ffff:127.0.0.1"),
    ],
)
@pytest.mark.parametrize("port", [0, 5353])
def test_udp_within_an_app(driver: Driver, family: str, address: str, dialled: str, port: int) -> None:
    code = f"""{UDP}
server = udp(socket.{family}, ({address!r}, {port})); client = udp(socket.{family}); there = ({dialled!r}, server.getsockname()[1])
client.sendto(b"question", there)
data, back = server.recvfrom(99)
print(data, back[0], back[1] == client.getsockname()[1])
server.sendto(b"answer", back)
data, peer = client.recvfrom(99)
print(data, peer[0], peer[1] == there[1])
other = udp(socket.{family}); other.sendto(b"from another socket", back)
data, peer = client.recvfrom(99)
print(data, peer[0], peer[1] == other.getsockname()[1])
"""
    same_as_native(driver, code)


def test_udp_server_that_answers_from_another_socket(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(
        server,
        f"{UDP}\ns = udp(socket.AF_INET, ('', 69)); s.settimeout(None); print('up')\n"
        "while True:\n data, peer = s.recvfrom(99); w = udp(socket.AF_INET, ('', 70)); w.sendto(data, peer); print(w.recvfrom(99)); w.close()",
    )
    code = f"""{UDP}
s = udp(socket.AF_INET); s.sendto(b"x", ("1.1.1.1", 69)); data, peer = s.recvfrom(99); print(data, peer); s.sendto(b"y", peer)
"""
    assert driver.python(client, code).ok() == "b'x' ('1.1.1.1', 70)\n"


def test_a_udp_server_on_a_port_of_the_kernels_choice(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    process = driver.serve(
        server,
        f"{UDP}\ns = udp(socket.AF_INET, ('', 0)); s.settimeout(None); print(s.getsockname()[1])\n"
        "while True: data, peer = s.recvfrom(99); s.sendto(peer[0].encode(), peer)",
    )
    port = int(process.output())
    code = f"{UDP}\ns = udp(socket.AF_INET); s.sendto(b'x', ('1.1.1.1', {port})); print(*s.recvfrom(99))"
    assert driver.python(client, code).ok() == f"b'2.2.2.2' ('1.1.1.1', {port})\n"


def test_udp_ports_of_clients_are_given_back(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = f"""{UDP}
for _ in range(300):
    s = udp(socket.AF_INET); s.sendto(b"x", ("127.0.0.1", 9)); s.connect(("127.0.0.1", 9))
    try: s.send(b"x")
    except ConnectionRefusedError: pass
    s.close()
print("done")
"""
    assert driver.python(app, code).ok() == "done\n"
    for name in ("ports", "reals"):
        assert driver.kernel._maps[name].items() == []


def test_udp_port_of_a_client_is_served_on_later(driver: Driver) -> None:
    code = f"""{UDP}
server = udp(socket.AF_INET, ("127.0.0.1", 0)); client = udp(socket.AF_INET); client.sendto(b"x", server.getsockname())
data, back = server.recvfrom(99); server.sendto(data, back); print(client.recvfrom(99)[0]); client.close()
later = udp(socket.AF_INET, back); server.sendto(b"y", back); print(later.recvfrom(99)[1] == server.getsockname())
"""
    same_as_native(driver, code)


def test_udp_answers_to_a_connected_client(driver: Driver) -> None:
    code = f"""{UDP}
server = udp(socket.AF_INET, ("127.0.0.1", 5353)); client = udp(socket.AF_INET); client.connect(server.getsockname()); client.send(b"x")
data, back = server.recvfrom(99); print(back == client.getsockname()); server.sendto(b"y", back); print(client.recvfrom(99), client.getpeername())
server.connect(back); server.send(b"z"); print(client.recv(99)); client.send(b"u"); print(server.recvfrom(99)[1] == back)
"""
    same_as_native(driver, code)


V6 = """
import errno, socket
def tcp(only=None, address=None, family=socket.AF_INET6, kind=socket.SOCK_STREAM):
    s = socket.socket(family, kind); s.settimeout(3)
    if only is not None: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    if address is not None: s.bind(address); kind == socket.SOCK_STREAM and s.listen()
    return s
def told(call, *args):
    try: return call(*args)
    except OSError as error: return errno.errorcode[error.errno]
"""


def test_v6only_shows_what_was_set(driver: Driver) -> None:
    code = f"""{V6}
get = lambda s: s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
print(get(tcp()), get(tcp(1)), get(tcp(0)), get(tcp(1, ("::", 0))), get(tcp(None, ("::1", 0))), get(tcp(None, ("::", 0))))
print(told(tcp(1, ("::", 0)).setsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0))
import ctypes
size = ctypes.c_int(8192); s = tcp()
print(ctypes.CDLL(None).getsockopt(s.fileno(), 6, socket.TCP_INFO, ctypes.create_string_buffer(8192), ctypes.byref(size)), size.value > 100)
"""
    assert same_as_native(driver, code) == "0 1 0 1 1 0\nEINVAL\n0 True\n"


def test_v6only_on_loopback(driver: Driver) -> None:
    code = f"""{V6}
only, dual = tcp(1, ("::", 5353)), tcp(0, ("::", 5354))
for port in (5353, 5354):
    print(told(tcp(family=socket.AF_INET).connect, ("127.0.0.1", port)), told(tcp().connect, ("::1", port)), told(tcp().connect, ("::ffff:127.0.0.1", port)))
"""
    assert same_as_native(driver, code) == "ECONNREFUSED None ECONNREFUSED\nNone None None\n"


def test_v6only_and_mapped_addresses(driver: Driver) -> None:
    code = f"""{V6}
there = ("::ffff:127.0.0.1", tcp(0, ("::", 0)).getsockname()[1])
print(told(tcp(1).connect, there), told(tcp(1).bind, ("::ffff:127.0.0.1", 0)))
print(told(tcp(1, kind=socket.SOCK_DGRAM).sendto, b"x", there), told(tcp(1, kind=socket.SOCK_DGRAM).connect, there))
"""
    assert same_as_native(driver, code) == "ENETUNREACH EINVAL\nENETUNREACH ENETUNREACH\n"


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_a_port_is_chosen_by_the_kernel_and_asked_for_by_turns(driver: Driver, kind: str) -> None:
    code = f"""
import socket
stream = socket.{kind} == socket.SOCK_STREAM
def serve(port):
    s = socket.socket(socket.AF_INET, socket.{kind}); s.settimeout(3); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", port))
    if stream: s.listen()
    return s
def reached(s):
    with socket.socket(socket.AF_INET, socket.{kind}) as c:
        c.connect(s.getsockname()); c.send(b"x")
        return (s.accept()[0] if stream else s).recv(9)
turns = 0
asked = set()
while turns < 3:  # until the kernel chooses again what was asked for
    s = serve(0); port = s.getsockname()[1]
    if port in asked: assert reached(s) == b"x"
    turns += port in asked
    s.close()
    if len(asked) < 100:
        asked.add(port); s = serve(port); assert reached(s) == b"x"; s.close()
print(turns)
"""
    name = driver.app("1.1.1.1")
    driver.sandbox.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50999"]).ok()
    assert driver.python(name, code).ok() == "3\n"


BIND = """
import errno, socket
def bind(port, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind)
    with s:
        try: s.bind(("", port)); return 0
        except OSError as e: return e.errno
"""


def test_an_app_has_its_share_of_the_ports(driver: Driver) -> None:
    """Beyond it that app alone is refused, which is said once; other apps are not harmed."""
    driver.kernel.add_ports(range(20000, 26000))
    greedy, other = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = f"{BIND}\nprint([bind(port) for port in range(1, 5001)].count(errno.EADDRINUSE), bind(4096), bind(4097), bind(0))"
    assert driver.python(greedy, code).ok() == f"{5000 - 4096} 0 {errno.EADDRINUSE} 0\n"
    assert driver.python(other, f"{BIND}\nprint({{bind(port) for port in range(1, 101)}})").ok() == "{0}\n"
    driver.follow()
    assert [event for event in driver.seen if isinstance(event, Crowded)] == [Crowded(1, 4097, Protocol.TCP)]


def test_failed_binds_keep_no_port_for_long(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    code = f"""{BIND}
k = socket.socket(); k.bind(("", 80)); k.listen()
print({{bind(80) for _ in range(400)}})
for port in range(100, 200):
    try: socket.socket().bind(("9.9.9.9", port))
    except OSError as e: assert e.errno == errno.EADDRNOTAVAIL
import time; print("bound", flush=True); time.sleep(99)
"""
    driver.serve(app, code)
    wait_until(lambda: len(driver.kernel.used_ports()) == 101, "it tried all")
    assert driver.kernel.holdings.give_back(0) == []
    assert len(driver.kernel.holdings.give_back(70)) == 100
    assert {service.port for service in driver.kernel.services()} == {80} and len(
        driver.kernel.used_ports()
    ) == 1


def test_a_loop_of_one_app_costs_no_other_its_events(driver: Driver) -> None:
    loud, quiet = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket
for _ in range(30000):
    s = socket.socket()
    try: s.connect(("169.254.1.1", 1))
    except PermissionError: s.close()
for _ in range(5000): s = socket.socket(); s.bind(("127.0.0.1", 80)); s.listen(); s.close()
"""
    driver.python(loud, code, timeout=60).ok()
    driver.python(quiet, "import socket; s = socket.socket(); s.bind(('', 81)); s.listen()").ok()
    known = -1
    while known != len(driver.seen):  # a batch each
        known = len(driver.seen)
        driver.follow()
    of_quiet = [
        event
        for event in driver.seen
        if isinstance(event, ListenerUp | ListenerDown) and event.service.app == 2
    ]
    assert len(of_quiet) == 2
    assert 20000 < driver.kernel.hushed() < 30000, "more than the ring has room for"


def test_a_number_that_the_kernel_chose_goes_with_its_socket(driver: Driver) -> None:
    code = """
import socket
seen = set()
for _ in range(150):
    s = socket.socket(); s.bind(("", 0)); port = s.getsockname()[1]
    if port in seen: continue  # it has a real port of its own since
    seen.add(port)
    t = socket.socket()
    try: t.bind(("", port)); print("bound twice")
    except OSError: pass
    if port % 2: s.listen()
    s.close(); t.bind(("", port)); t.close()
"""
    assert driver.python(driver.app("1.1.1.1"), code).ok() == ""
    rows = driver.kernel._maps["ports"].items()
    assert len(rows) == len(driver.kernel.used_ports()) > 0


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_own_address_and_loopback_on_one_port(driver: Driver, kind: str) -> None:
    """As named, redis and postgres listen by default: others reach the one, the app reaches each."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = f"""
import select, socket
k = {{}}
for address in "1.1.1.1", "127.0.0.1":
    s = socket.socket(socket.AF_INET, socket.{kind}); s.bind((address, 53)); k[s.fileno()] = s, address
    if socket.{kind} == socket.SOCK_STREAM: s.listen()
poll = select.poll()
for fd in k: poll.register(fd, 1)
print("up", flush=True)
while True:
    for fd, _ in poll.poll():
        s, address = k[fd]
        if socket.{kind} == socket.SOCK_STREAM: c, peer = s.accept(); c.send(f"{{address}} {{peer[0]}}".encode()); c.close()
        else: peer = s.recvfrom(9)[1]; s.sendto(f"{{address}} {{peer[0]}}".encode(), peer)
"""
    driver.serve(server, code)
    ask = f"""
import socket
for address in "1.1.1.1", "127.0.0.1", "127.0.0.2":
    s = socket.socket(socket.AF_INET, socket.{kind}); s.settimeout(5); s.connect_ex((address, 53))
    try: s.send(b"x"); print(s.recv(99).decode())
    except OSError: print("refused")
"""
    for follow in (False, True):
        if follow:
            driver.follow()
        assert driver.python(client, ask).ok() == "1.1.1.1 2.2.2.2\nrefused\nrefused\n"
        assert driver.python(server, ask).ok() == "1.1.1.1 1.1.1.1\n127.0.0.1 127.0.0.1\nrefused\n"
    assert len(driver.kernel.services()) == 2


def test_a_socket_that_listens_long_after_its_bind(driver: Driver) -> None:
    """Its port counts as given back by then; it serves as ever, and another may bind the number meanwhile."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    code = """
import socket, sys
s = socket.socket(); s.bind(("", 80)); print("bound", flush=True); sys.stdin.readline()
t = socket.socket(); t.bind(("", 80)); t.close(); s.listen(); print(s.getsockname(), flush=True); c, peer = s.accept(); c.send(peer[0].encode()); c.close()
"""
    process = driver.sandbox.start(["python3", "-u", "-c", code], cgroup=server, stdin=subprocess.PIPE)
    wait_until(lambda: "bound" in process.output(), "it is bound")
    driver.kernel.holdings.give_back(0)
    assert driver.kernel.holdings.give_back(99) == [40000]
    process.send("go on")
    wait_until(lambda: "80)" in process.output(), "it listens")
    ask = "import socket; s = socket.socket(); s.connect(('1.1.1.1', 80)); print(s.recv(99), s.getpeername())"
    assert driver.python(client, ask).ok() == "b'2.2.2.2' ('1.1.1.1', 80)\n"
    assert process.popen.stdin is not None
    process.popen.stdin.close()
    process.stop()
