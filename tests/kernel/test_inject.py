"""The holder with real filters and real programs: what an app sees of an injected socket()."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from kernel.holding import MANY, Node, done, node, stop

from appswitch.errors import InvalidInput, NotFound, Unavailable, Unsupported
from appswitch.interceptor import abi, seccomp
from appswitch.interceptor import inject_wire as wire


@pytest.fixture
def held() -> Iterator[Node]:
    with node() as made:
        yield made


def settle(held: Node, files: int) -> None:
    """The holder comes back to that many descriptors, one client's connection more or less."""
    deadline = time.monotonic() + 5
    while held.open_files() > files:
        assert time.monotonic() < deadline, f"{held.open_files()} descriptors, expected {files}"
        time.sleep(0.02)


def test_sizes() -> None:
    seccomp.check_sizes()


def test_kinds_flags_and_owner(held: Node) -> None:
    """Every kind comes with its flags and its owner; native ones are left alone; MPTCP is refused."""
    app = held.app(
        0xF00001BB,
        """
import errno, fcntl, os, socket, sys
kinds = []
for family in socket.AF_INET, socket.AF_INET6:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        for flag in 0, socket.SOCK_NONBLOCK:
            for again in range(3):
                s = socket.socket(family, kind | flag)
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == family
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == kind
                assert bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK) == bool(flag)
                assert fcntl.fcntl(s, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
                kinds.append(s)
import ctypes
raw = ctypes.CDLL(None, use_errno=True).socket(socket.AF_INET, socket.SOCK_STREAM, 0)
assert fcntl.fcntl(raw, fcntl.F_GETFD) == 0
try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError as e: assert e.errno == errno.EPROTONOSUPPORT, e
else: sys.exit("MPTCP was given")
unix = socket.socket(socket.AF_UNIX)
print(*[s.fileno() for s in kinds], raw, flush=True)
sys.stdin.read()
""",
    )
    assert app.stdout is not None
    descriptors = app.stdout.readline().split()
    assert len(descriptors) == 25
    for fd in descriptors:
        assert held.owner(app, int(fd)) == (0xF00001BB, 0xBB, IPv4Address("1.1.1.187").packed, abi.APP_EMPTY)
    done(app)


def test_whose_call_it_is(held: Node) -> None:
    """Under one filter the caller's cgroup tells the apps inside it from the app around them."""
    code = """
import socket, sys
for line in sys.stdin: s = socket.socket(); print(s.fileno(), flush=True); s.detach()
"""
    outer, notify, channel = held.filtered(sys.executable, "-S", "-c", code)

    def owner() -> int:
        assert outer.stdin is not None and outer.stdout is not None
        outer.stdin.write("\n")
        outer.stdin.flush()
        return held.owner(outer, int(outer.stdout.readline()))[0]

    with held.client() as client, held.cgroup(outer) as path:
        client.nest(1, 2, 0, IPv4Address("1.1.1.2"), f"{path}/below")  # before it is added
        client.add(1, 0, IPv4Address("1.1.1.1"), notify)
        channel.send(b"g")
        assert [owner(), owner()] == [1, 1]
        client.nest(1, 3, 0, IPv4Address("1.1.1.3"), path)
        assert [owner(), owner()] == [3, 3]
        client.nest(1, 4, 0, IPv4Address("1.1.1.4"), path)
        assert [owner(), owner()] == [4, 4]
        client.nest(1, 3, 0, IPv4Address("1.1.1.3"), path.rpartition("/")[0] + "/none")
        client.remove(4)
        assert owner() == 1
        client.remove(2)
        client.remove(3)
        with pytest.raises(NotFound):
            client.remove(3)
        files = held.open_files()
        client.nest(1, 5, 0, IPv4Address("1.1.1.5"), path)
        assert owner() == 5  # and one more waits
        client.remove(5)
        settle(held, files)
    os.close(notify)
    channel.close()


def test_two_apps_talk(held: Node) -> None:
    """Two empty namespaces meet in the node's network."""
    server = held.app(
        1,
        """
import socket
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
c.sendall(c.recv(100).upper())
""",
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    client = held.app(
        2,
        f"""
import socket
c = socket.create_connection(("127.0.0.1", {port}), 5)
c.sendall(b"hello"); print(c.recv(100).decode())
""",
    )
    assert done(client).strip() == "HELLO"
    done(server)


def test_close_is_the_last(held: Node) -> None:
    """The holder keeps nothing: a port is free as soon as the app has closed its socket."""
    app = held.app(
        1,
        """
import socket
with socket.create_server(("127.0.0.1", 0)) as s: port = s.getsockname()[1]
for i in range(300):
    a, b = socket.socket(), socket.socket()
    a.bind(("127.0.0.1", port)); a.listen(); a.close()
    b.bind(("127.0.0.1", port)); b.listen(); b.close()
print("ok")
""",
    )
    assert done(app) == "ok\n"


def test_threads_and_forks(held: Node) -> None:
    files = held.open_files()
    app = held.app(
        1,
        """
import os, socket, sys, threading
bad = []
def many():
    for i in range(200):
        with socket.socket() as s:
            if s.fileno() < 3 or s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != 6: bad.append(s)
children = []
for child in range(3):
    if (pid := os.fork()) == 0:
        many(); os._exit(len(bad))
    children.append(pid)
threads = [threading.Thread(target=many) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
for pid in children: assert os.waitpid(pid, 0)[1] == 0
assert not bad
print("ok")
""",
    )
    assert done(app) == "ok\n"
    settle(held, files)
    with held.client() as client:
        holding = client.holding()
        holding.close()
        assert holding.apps == () and holding.pid == held.holder.pid


@pytest.mark.parametrize("restart", [True, False])
def test_timer_signals(held: Node, restart: bool) -> None:
    """A signal each millisecond: socket() never fails, and no descriptor is lost or given twice.

    A handler without SA_RESTART can see EINTR where the signal comes before the holder has received the
    call: WAIT_KILLABLE_RECV protects from then on.  Even then nothing is lost.
    """
    app = held.app(
        1,
        f"""
import os, signal, socket
hits = interrupted = 0
def hit(*_):
    global hits
    hits += 1
signal.signal(signal.SIGALRM, hit)
signal.siginterrupt(signal.SIGALRM, {not restart})
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
before = len(os.listdir("/proc/self/fd"))
while hits < 1000:
    try: s = socket.socket()
    except InterruptedError: interrupted += 1
    else: assert s.fileno() > 2; s.close()
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(os.listdir("/proc/self/fd")) == before
print(interrupted)
""",
    )
    interrupted = int(done(app))
    assert interrupted == 0 if restart else interrupted < 500, interrupted


def test_app_out_of_descriptors(held: Node) -> None:
    """EMFILE is the app's alone, and it recovers."""
    app = held.app(
        1,
        """
import errno, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
kept = []
try:
    while True: kept.append(socket.socket())
except OSError as e: assert e.errno == errno.EMFILE, e
kept.pop().close()
for i in range(50): socket.socket().close()
print("ok")
""",
    )
    assert done(app) == "ok\n"
    assert done(held.app(2, MANY.format(count=10))) == "ok\n"


def test_holder_out_of_descriptors(held: Node) -> None:
    """Waiting sockets make room first; then the app is told EMFILE; afterwards all is well."""
    waiting = held.app(1, "import socket, sys\nsocket.socket(); print(flush=True); sys.stdin.read()")
    assert waiting.stdout is not None and waiting.stdout.readline() == "\n"
    second, notify, channel = held.filtered(
        sys.executable,
        "-S",
        "-c",
        "import errno, socket, sys\n"
        "s = socket.socket()\n"
        "print(flush=True); sys.stdin.readline()\n"
        "try: t = socket.socket(socket.AF_INET6)\n"
        "except OSError as e: assert e.errno == errno.EMFILE\n"
        "else: sys.exit('given')\n"
        "print(flush=True); sys.stdin.readline()\n"
        "socket.socket(socket.AF_INET6); print('ok')",
    )
    assert second.stdin is not None and second.stdout is not None
    with channel, held.client() as client:
        client.add(2, 0, IPv4Address("1.1.1.2"), notify)
        old = resource.prlimit(held.holder.pid, resource.RLIMIT_NOFILE)
        assert old[0] >= 20_000
        # The lowest free number decides: both waiting sockets lie at or above this limit later on.
        settle_at = held.open_files()
        resource.prlimit(held.holder.pid, resource.RLIMIT_NOFILE, (settle_at, old[1]))
        channel.send(b"g")
        assert second.stdout.readline() == "\n", "room was to be made"
        with pytest.raises(Unavailable), held.client() as turned_away:
            turned_away.holding()
        time.sleep(0.1)  # the client is turned away before that is told, and a spinning loop tells it often
        assert len(held.events("holder-client-refused")) == 1
        resource.prlimit(held.holder.pid, resource.RLIMIT_NOFILE, (3, old[1]))
        second.stdin.write("\n")
        second.stdin.flush()
        assert second.stdout.readline() == "\n"
        resource.prlimit(held.holder.pid, resource.RLIMIT_NOFILE, old)
    assert second.communicate("\n", timeout=10)[0] == "ok\n"
    os.close(notify)
    done(waiting)


def test_its_log_stays_small(held: Node) -> None:
    """Apps can cause events; a file that has grown begins anew."""
    path = held.run_dir / "log"
    with path.open("ab") as log:
        log.write(b"\n" * (5 << 20))
    with held.client() as client, pytest.raises(NotFound):
        client.remove(99)
    deadline = time.monotonic() + 5
    while path.stat().st_size > 4096:
        assert time.monotonic() < deadline, path.stat().st_size
        time.sleep(0.01)
    assert held.events("holder-request-refused")


def test_sigterm_lock_and_daemon_death(held: Node) -> None:
    """A client's death changes nothing; there is one holder on a run directory; SIGTERM ends it well."""
    app = held.app(1, "import socket, sys\nprint(flush=True); sys.stdin.read(); socket.socket(); print('ok')")
    assert app.stdout is not None and app.stdout.readline() == "\n"
    path = held.run_dir / wire.SOCKET_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    command = [sys.executable, "-P", "-m", "appswitch.interceptor.inject", str(held.run_dir), str(held.pin)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=held.run_dir)
    assert (second.returncode, second.stderr.count("\n")) == (73, 1), second.stderr
    assert done(app) == "ok\n"
    assert stop(held.holder) == 0
    assert not path.exists()


def test_bad_requests(held: Node) -> None:
    """Each gets a typed answer and one event; descriptors that come along are closed."""
    files = held.open_files()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5)
    sock.connect(str(held.run_dir / wire.SOCKET_NAME))
    stray, other = os.pipe()
    add = b'{"version":1,"add":{"id":1,"class":0,"ip":"1.1.1.1"}}'
    cases: list[tuple[bytes, list[int], str]] = [
        (b"{", [], "malformed"),
        (b"\xff\xfe", [stray], "malformed"),
        (b'{"version":1}', [], "malformed"),
        (b'{"version":9,"list":{}}', [], "version"),
        (b'{"version":1,"list":{"x":1}}', [], "malformed"),
        (add, [], "malformed"),
        (add, [stray, stray], "malformed"),
        (add, [stray], "malformed"),
        (add.replace(b"1.1.1.1", b"1.1.1"), [stray], "malformed"),
        (b'{"version":1,"adopt":{}}', [stray], "malformed"),
        (b'{"version":1,"remove":{"id":77}}', [], "not-found"),
        (b" " * (wire.MAX_MESSAGE + 1), [], "malformed"),
        (b"[" * 60_000, [], "malformed"),
    ]
    for data, descriptors, code in cases:
        socket.send_fds(sock, [data], descriptors)
        reply = wire.decode_reply(sock.recv(wire.MAX_MESSAGE))
        assert reply.error is not None and reply.error.code == code, (data[:60], reply)
    assert [event["code"] for event in held.events("holder-request-refused")] == [
        code for _, _, code in cases
    ]
    sock.close()
    os.close(stray)
    os.close(other)
    settle(held, files)
    with held.client() as client:
        with pytest.raises(NotFound, match="no app 0000004d"):
            client.remove(77)
        client.holding().close()
    assert wire.error_of(wire.Failure("version", "x")).__class__ is Unsupported
    assert issubclass(InvalidInput, wire.ERRORS["malformed"])


def test_list_in_pages_and_remove(held: Node) -> None:
    """More apps than one message can carry; replaced, removed, and gone when their program is."""
    files = held.open_files()
    process, notify, channel = held.filtered("sleep", "60")
    with held.client() as client:
        for number in range(1, 451):
            client.add(number, 7, IPv4Address(number), notify)
        client.add(450, 8, IPv4Address("9.9.9.9"), notify)
        holding = client.holding()
        assert [app.id for app in holding.apps] == list(range(1, 451))
        assert holding.apps[449].ip == IPv4Address("9.9.9.9") and holding.apps[449].class_index == 8
        assert len({holding.flight, *(app.fd for app in holding.apps)}) == 451
        holding.close()
        client.remove(1)
        with pytest.raises(NotFound):
            client.remove(1)
        channel.send(b"g")
        process.kill()
        process.wait()
    settle(held, files)
    os.close(notify)
    channel.close()
