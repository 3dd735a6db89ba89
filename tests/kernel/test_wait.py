"""Connect-wait in the kernel: what a program sees of a connect() to what is known and not up yet."""

from __future__ import annotations

import json
import signal
import time
from ipaddress import IPv4Address

import pytest
from e2e.sandbox import Process, wait_until
from kernel.driver import NODE_IP, Driver

from appswitch.model import Backend, PortMap, VService

VIP = IPv4Address("5.5.5.5")

LATE = """
import signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
print("here")
signal.sigwait({{signal.SIGUSR1}})
s = socket.socket({family})
s.bind(("{address}", {port}))
s.listen({backlog})
while True:
    c, a = s.accept()
    c.sendall(f"{{a[0]}} at {{c.getsockname()[0]}}:{{c.getsockname()[1]}}".encode())
    c.close()
"""
DIAL = """
import errno, signal, socket, struct, time
start = time.monotonic()
s = socket.socket({family})
{before}
print("dials")
try:
    s.connect(("{address}", {port}))
    {after}
    print(s.getpeername()[:2], s.getsockname()[0], s.recv(99).decode())
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
print(f"{{time.monotonic() - start:.2f}}")
"""


def late(driver: Driver, app: str, *, port: int = 80, address: str = "0.0.0.0", backlog: int = 64) -> Process:
    """A server that listens as soon as it gets SIGUSR1."""
    family = "socket.AF_INET6" if ":" in address else ""
    code = LATE.format(port=port, address=address, family=family, backlog=backlog)
    return driver.serve(app, code)


def dial(
    driver: Driver, app: str, address: str = "1.1.1.1", port: int = 80, before: str = "", after: str = ""
) -> Process:
    """A blocking connect() under way."""
    family = "socket.AF_INET6" if ":" in address else ""
    code = DIAL.format(address=address, port=port, family=family, before=before, after=after or "pass")
    return driver.start(app, code)


def outcome(process: Process) -> tuple[str, float]:
    """What it came to, and after how many seconds."""
    process.wait(30)
    _, what, seconds = process.output().splitlines()
    return what, float(seconds)


def waiting(driver: Driver, count: int = 1) -> None:
    """Until so many connect() wait, or none."""
    wait_until(lambda: driver.kernel.waiting.count() == count, f"{count} wait")


def hold(*clients: Process) -> None:
    """Time enough for some SYNs to be refused; nobody has noticed."""
    time.sleep(0.6)
    assert not [client.output() for client in clients if client.popen.poll() is not None]


@pytest.mark.parametrize(
    ("asked", "bound"), [("1.1.1.1", "0.0.0.0"), ("::ffff:1.1.1.1", "::"), ("1.1.1.1", "1.1.1.1")]
)
def test_it_goes_on_when_somebody_listens(driver: Driver, asked: str, bound: str) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=10)
    serving = late(driver, server, address=bound)
    dialling = dial(driver, client, asked)
    waiting(driver)
    hold(dialling)
    serving.popen.send_signal(signal.SIGUSR1)
    what, seconds = outcome(dialling)
    own, mapped = asked.replace("1.1.1.1", "2.2.2.2"), "::ffff:" if ":" in bound else ""
    assert what == f"('{asked}', 80) {own} {mapped}2.2.2.2 at {mapped}1.1.1.1:80"
    assert seconds < 3
    waiting(driver, 0)


def test_refused_at_the_deadline(driver: Driver) -> None:
    driver.app("1.1.1.1")
    waiter, hasty = driver.app("2.2.2.2", wait=1.0), driver.app("3.3.3.3")
    dialling = dial(driver, waiter)
    waiting(driver)
    assert outcome(dial(driver, hasty)) == ("ECONNREFUSED", pytest.approx(0, abs=0.4))
    what, seconds = outcome(dialling)
    assert what == "ECONNREFUSED"
    assert 0.9 < seconds < 2.5
    assert not driver.kernel.waiting.count() and not driver.kernel.counters.read()


RAW = """
import ctypes, errno, json, os, select, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
ADDRESS = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(80), socket.inet_aton("1.1.1.1"))
def connect(s):
    return 0 if libc.connect(s.fileno(), ADDRESS, len(ADDRESS)) == 0 else errno.errorcode[ctypes.get_errno()]
def state(s):
    try:
        peer = s.getpeername()[0]
    except OSError as error:
        peer = errno.errorcode[error.errno]
    return [select.poll().poll(0), error_of(s), peer]
def error_of(s):
    return s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
def events(s, seconds):
    poll = select.poll()
    poll.register(s, select.POLLIN | select.POLLOUT)
    return [event for _, event in poll.poll(1000 * seconds)]
def options(s):
    return [s.getsockopt(socket.IPPROTO_TCP, which) for which in (7, 44)]  # TCP_SYNCNT, TCP_RTO_MAX_MS
print("raw")
"""


def test_interrupted_timed_out_and_given_up(driver: Driver) -> None:
    """As the kernel has it for a server that does not answer."""
    driver.app("1.1.1.1")
    code = """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
s = socket.socket()
signal.setitimer(signal.ITIMER_REAL, 0.2)
found = [connect(s)]
s.setblocking(False)
found += [connect(s), error_of(s)]
t = socket.socket()
t.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200000))
found += [connect(t)]
signal.siginterrupt(signal.SIGALRM, False)
u = socket.socket()
u.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 400000))
signal.setitimer(signal.ITIMER_REAL, 0.2)
found += [connect(u)]
s.close()
print(json.dumps(found))
"""
    client = driver.app("2.2.2.2", wait=30)
    out = driver.python(client, RAW + code).ok()
    assert json.loads(out.splitlines()[1]) == ["EINTR", "EALREADY", 0, "EINPROGRESS", "EINTR"]
    waiting(driver, 0)  # its other sockets went with the process


def test_non_blocking(driver: Driver) -> None:
    """In progress until it is connected, and then as any other socket."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=30)
    serving = late(driver, server)
    code = """
s = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
before = options(s)
print(connect(s), events(s, 0.5), error_of(s), connect(s), flush=True)
came = events(s, 10)[0] in (select.POLLOUT, select.POLLOUT | select.POLLIN)
print(came, error_of(s), s.getpeername(), options(s) == before)
"""
    dialling = driver.serve(client, RAW + code)
    wait_until(lambda: dialling.output().count("\n") == 2, "it is in progress")
    serving.popen.send_signal(signal.SIGUSR1)
    dialling.wait()
    assert dialling.output().splitlines()[1:] == [
        "EINPROGRESS [] 0 EALREADY",
        "True 0 ('1.1.1.1', 80) True",
    ]


def test_policy_is_told_at_once(driver: Driver) -> None:
    driver.app("1.1.1.1", "role=prod")
    client = driver.app("2.2.2.2", "role=test", wait=30)
    assert outcome(dial(driver, client)) == ("EACCES", pytest.approx(0, abs=0.4))


def vservice(driver: Driver, *backends: str, name: str = "v") -> None:
    """VIP port 80 before these (IP or IP:port)."""
    pairs = (text.partition(":") for text in backends)
    made = tuple(Backend(IPv4Address(ip), int(port or 0)) for ip, _, port in pairs)
    driver.registry.create_vservice(VService(name, (VIP,), (PortMap(80, 80),), made))
    driver.write()


def test_the_second_of_two_comes_up(driver: Driver) -> None:
    """A vservice that gets its backends while somebody waits."""
    driver.app("1.1.1.1")
    vservice(driver, "1.1.1.1")
    second, client = driver.app("1.1.1.2"), driver.app("2.2.2.2", wait=30)
    serving = late(driver, second)
    dialling = dial(driver, client, str(VIP))
    waiting(driver)
    driver.registry.delete_vservice("v")
    vservice(driver, "1.1.1.1", "1.1.1.2")
    hold(dialling)
    serving.popen.send_signal(signal.SIGUSR1)
    assert outcome(dialling)[0] == "('5.5.5.5', 80) 2.2.2.2 2.2.2.2 at 5.5.5.5:80"
    [(edge, count)] = driver.kernel.counters.read().items()
    assert (edge.app, edge.target, edge.address, edge.port) == (3, 2, VIP, 80)
    assert (count.opened, count.ended, count.failed) == (1, 1, 0)
    assert edge.backend_port in driver.kernel.used_ports() - {driver.kernel.waiting.hole}


def test_what_waits_in_vain_is_let_go(driver: Driver) -> None:
    """The vIP is no more: a connect() made anew will hear of it."""
    driver.app("1.1.1.1")
    vservice(driver, "1.1.1.1")
    client = driver.app("2.2.2.2", wait=30)
    dialling = dial(driver, client, str(VIP))
    waiting(driver)
    driver.registry.delete_vservice("v")
    driver.write()
    what, seconds = outcome(dialling)
    assert what == "ECONNREFUSED" and seconds < 3


def test_a_listener_older_than_all_waiting_apps(driver: Driver) -> None:
    server = driver.app("1.1.1.1")
    serving = late(driver, server)
    serving.popen.send_signal(signal.SIGUSR1)
    wait_until(lambda: driver.kernel.services(), "it listens")
    driver.app("1.1.1.2")
    vservice(driver, "1.1.1.2")
    client = driver.app("2.2.2.2", wait=30)
    dialling = dial(driver, client, str(VIP))
    waiting(driver)
    driver.registry.delete_vservice("v")
    vservice(driver, "1.1.1.1")
    what, seconds = outcome(dialling)
    assert what == "ECONNREFUSED" and seconds < 3  # it is up: the next one succeeds
    assert outcome(dial(driver, client, str(VIP)))[0].startswith("('5.5.5.5', 80)")


CROWD = """
import select, socket
waiting = [socket.socket() for _ in range(200)]
poll = select.poll()
for s in waiting:
    s.setblocking(False)
    s.connect_ex(("1.1.1.1", 80))
    poll.register(s, select.POLLOUT)
print("dials")
ready = set()
while len(ready) < len(waiting):
    for fd, event in poll.poll(20000):
        assert event == select.POLLOUT
        poll.unregister(fd)
        ready.add(fd)
for s in waiting:
    s.setblocking(True)
print({s.recv(99).decode() for s in waiting})
"""


@pytest.mark.parametrize("cookies", [1, 2])
def test_a_crowd(driver: Driver, cookies: int) -> None:
    """200 at once; also where each SYN is answered with a cookie (2: always)."""
    sysctl = f"echo {cookies} >/proc/sys/net/ipv4/tcp_syncookies"
    driver.sandbox.run(["sh", "-c", sysctl]).ok()
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=30)
    serving = late(driver, server, backlog=256)
    crowd = driver.serve(client, CROWD)
    waiting(driver, 200)
    serving.popen.send_signal(signal.SIGUSR1)
    assert crowd.wait(30) == 0, crowd.output()
    assert crowd.output().splitlines()[1:] == ["{'2.2.2.2 at 1.1.1.1:80'}"]
    waiting(driver, 0)


SHARED = """
import signal, socket
def listener():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("0.0.0.0", 80))
    s.listen(8)
    return s
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("here")
signal.sigwait({signal.SIGUSR1})
first, second = listener(), listener()
second.close()
first.accept()[0].sendall(b"first")
"""


def test_a_shared_port_whose_newest_listener_is_closed(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=30)
    serving = driver.serve(server, SHARED)
    dialling = dial(driver, client)
    waiting(driver)
    serving.popen.send_signal(signal.SIGUSR1)
    assert outcome(dialling)[0].endswith("first")


HOST = f"""
import socket
s = socket.socket()
s.bind(("{NODE_IP}", 901))
s.listen(8)
while True:
    c, _ = s.accept()
    c.sendall(b"the host's")
    c.close()
"""


def test_a_backend_outside(driver: Driver) -> None:
    """It is dialled again until it does not refuse; where it is one of several, it is down and not late."""
    vservice(driver, f"{NODE_IP}:901")
    client = driver.app("2.2.2.2", wait=30)
    dialling = dial(driver, client, str(VIP))
    waiting(driver)
    host = driver.sandbox.start(["python3", "-c", HOST], cgroup="host")
    try:
        assert outcome(dialling)[0] == "('5.5.5.5', 80) 2.2.2.2 the host's"
    finally:
        host.stop()
    driver.registry.delete_vservice("v")
    vservice(driver, f"{NODE_IP}:901", f"{NODE_IP}:902")
    assert outcome(dial(driver, client, str(VIP))) == ("ECONNREFUSED", pytest.approx(0, abs=0.4))


def test_the_hole_is_nobodys(driver: Driver) -> None:
    """No way around policy: a host program, an app and a waiting app find nothing there."""
    server = driver.app("1.1.1.1", "role=prod")
    late(driver, server).popen.send_signal(signal.SIGUSR1)
    client = driver.app("2.2.2.2", "role=test", wait=1)
    hole = driver.kernel.waiting.hole
    assert hole in driver.kernel.used_ports() and hole not in driver.kernel.take_ports()
    code = f"""
import errno, socket
for address in ("127.0.0.1", "{NODE_IP}"):
    print(errno.errorcode[socket.socket().connect_ex((address, {hole}))])
"""
    for app in (server, client, "host"):
        assert driver.python(app, code).ok().split() == ["ECONNREFUSED"] * 2


def test_attached_only_while_it_is_needed(driver: Driver) -> None:
    driver.app("1.1.1.1")
    link = driver.kernel.pin_dir / "lookup"
    assert not link.exists() and not driver.kernel.waiting.hole
    client = driver.app("2.2.2.2", wait=1)
    hole = driver.kernel.waiting.hole
    assert link.exists() and hole
    driver.kernel.waiting.stop()
    assert not link.exists()
    driver.kernel.waiting.start()
    driver.kernel.waiting.start()
    assert link.exists() and driver.kernel.waiting.hole == hole
    assert outcome(dial(driver, client))[0] == "ECONNREFUSED"


def test_an_app_has_its_share_and_no_more(driver: Driver) -> None:
    """Beyond it a refusal is told at once; what has ended is given back."""
    driver.app("1.1.1.1")
    client = driver.app("2.2.2.2", wait=60)
    code = """
import resource, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8000), hard))
def dial():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(("1.1.1.1", 80))
    return s
kept = [dial() for _ in range(4096)]
last = dial()
last.setblocking(True)
print("dials", last.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
kept.pop().close()
print(dial().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
"""
    dialling = driver.serve(client, code)
    assert dialling.wait(30) == 0
    assert dialling.output().split() == ["dials", "111", "0"]
    waiting(driver, 0)


def test_a_socket_that_outlives_its_app(driver: Driver) -> None:
    """Passed on, it still waits; but the app's class may be another's by now: it is led nowhere."""
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=60)
    serving = late(driver, server)
    dialling = dial(driver, client)
    waiting(driver)
    driver.kernel.forget(2)
    serving.popen.send_signal(signal.SIGUSR1)
    what, seconds = outcome(dialling)
    assert what == "ECONNREFUSED" and seconds < 5
