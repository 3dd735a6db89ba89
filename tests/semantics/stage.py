"""What the programs of `cases/` are written with: plain sockets, blocking or not, and what they say.

It imports nothing of ours: it runs as an unmodified program.  A case is a function (one process) or a class
with `server(link)` and `client(link)` (two processes: natively two machines on one wire).
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from typing import Any

SERVER, CLIENT, OWN = "1.1.1.1", "2.2.2.2", "3.3.3.3"
"""Addresses of the two sides, and of the machine where cases of one process run."""
BLOCKING = True
PATIENCE = 3.0
"""Seconds to wait for what must come."""
LIMIT = 10
"""Seconds that a case may take."""
libc = ctypes.CDLL(None, use_errno=True)

FIRST_PORT = PORT = 0
"""PORT: the first of twenty ports that no other case uses."""
cases: dict[str, Any] = {}
said: list[str] = []


def case(made: Any) -> Any:
    """Adds a function, or a class of two sides, to the cases of its module."""
    cases[made.__name__] = made
    return made


def say(*words: object) -> None:
    """One line of the transcript."""
    said.append(" ".join(map(str, words)))


class Link:
    """The two processes of a case talk beside the network: over a Unix socket."""

    def __init__(self, path: str, server: bool) -> None:
        """Raises OSError: the other one did not come."""
        if server:
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.bind(path + ".new")
                waiting.listen()
                os.rename(path + ".new", path)  # there, and listening
                waiting.settimeout(LIMIT)
                self._socket = waiting.accept()[0]
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(path)
        self._socket.setblocking(True)
        self._read = b""  # not makefile(): it takes no signal that raises
        self._begun = ""

    def tell(self, what: object = None) -> None:
        """Something for the other side."""
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> Any:
        """What the other side told.  Raises EOFError: it is done with the case, or gone."""
        while not self._begun and b"\n" not in self._read:
            if not (more := self._socket.recv(999)):
                break
            self._read += more
        line, end, rest = self._read.partition(b"\n")
        if self._begun or not end:
            raise EOFError("the other side is done")
        self._read = rest
        what = json.loads(line)
        if isinstance(what, dict):
            self._begun = what["begin"]
            raise EOFError("the other side is done")
        return what

    def begin(self, name: str) -> None:
        """Both sides begin the case; what was not heard of the last one is dropped."""
        self.tell({"begin": name})
        while self._begun != name:
            self._begun = ""
            try:
                self.hear()
            except EOFError:
                if not self._begun:
                    raise
        self._begun = ""

    def meet(self) -> None:
        """Both sides are here."""
        self.tell()
        self.hear()


# --- sockets of both kinds


def made(sock: socket.socket) -> socket.socket:
    """In the style of this run."""
    sock.setblocking(BLOCKING)
    return sock


def tcp(family: int = socket.AF_INET, *options: tuple[int, int, int]) -> socket.socket:
    """A TCP socket with these options."""
    return _new(family, socket.SOCK_STREAM, options)


def udp(family: int = socket.AF_INET, *options: tuple[int, int, int]) -> socket.socket:
    """A UDP socket with these options."""
    return _new(family, socket.SOCK_DGRAM, options)


def _new(family: int, kind: int, options: tuple[tuple[int, int, int], ...]) -> socket.socket:
    sock = made(socket.socket(family, kind))
    for option in options:
        sock.setsockopt(*option)
    return sock


ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
DUAL = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
REUSEADDR = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def name_of(error: int | None) -> str:
    """`ECONNREFUSED` for 111, `ok` for 0."""
    return errno.errorcode.get(error, str(error)) if error else "ok"


def told(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the name of its errno."""
    try:
        result = call(*args)
    except OSError as error:
        return name_of(error.errno) if error.errno else type(error).__name__
    return "ok" if result is None else result


def ready(sock: socket.socket, events: int, timeout: float = PATIENCE) -> int:
    """What poll() says; 0 at the deadline."""
    poll = select.poll()
    poll.register(sock, events)
    found = poll.poll(timeout * 1000)
    return found[0][1] if found else 0


def again(sock: socket.socket, events: int, call: Callable[..., Any], *args: Any) -> Any:
    """A call in this run's style: one that would block is made again once the socket is ready."""
    while True:
        try:
            result = call(*args)
        except BlockingIOError:
            if not ready(sock, events):
                return "nothing came"
            continue
        except OSError as error:
            return name_of(error.errno)
        return "ok" if result is None else result


def dial(sock: socket.socket, address: Any) -> str:
    """connect() to its end."""
    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS and not BLOCKING:
        if not ready(sock, select.POLLOUT):
            return "nothing came"
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return name_of(error)


def take(sock: socket.socket) -> Any:
    """accept(): connection and address, or the name of an errno."""
    got = again(sock, select.POLLIN, sock.accept)
    if not isinstance(got, str):
        made(got[0])
    return got


def get(sock: socket.socket, size: int = 999, *flags: int) -> Any:
    """recv()."""
    return again(sock, select.POLLIN, sock.recv, size, *flags)


def get_from(sock: socket.socket, size: int = 999, *flags: int) -> Any:
    """recvfrom()."""
    return again(sock, select.POLLIN, sock.recvfrom, size, *flags)


def nothing(sock: socket.socket, seconds: float = 0.5) -> bool:
    """Whether nothing can be read for a while."""
    return ready(sock, select.POLLIN, seconds) == 0


def disconnect(sock: socket.socket) -> str:
    """connect(AF_UNSPEC)."""
    result = libc.connect(sock.fileno(), bytes(28), 28)
    return "ok" if result == 0 else name_of(ctypes.get_errno())


def soft_error(sock: socket.socket) -> str:
    """SO_ERROR."""
    return name_of(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def listening(address: Any, family: int = socket.AF_INET, *options: tuple[int, int, int]) -> socket.socket:
    """A bound, listening TCP socket."""
    sock = tcp(family, *options)
    sock.bind(address)
    sock.listen(16)
    return sock


def bound(address: Any, family: int = socket.AF_INET, *options: tuple[int, int, int]) -> socket.socket:
    """A bound UDP socket."""
    sock = udp(family, *options)
    sock.bind(address)
    return sock


def port(number: int = 0) -> int:
    """One of the case's ports."""
    return PORT + number


def host(name: Any) -> Any:
    """The address of a socket's name, without a port that is chance."""
    return name[0] if isinstance(name, tuple) else name


# --- running a case


class Late(Exception):
    """The case hangs."""


def _late(*_: object) -> None:
    raise Late


def perform(name: str, side: str, link: Link | None) -> list[str]:
    """Runs one case; its transcript."""
    global PORT
    said.clear()
    PORT = FIRST_PORT + 20 * list(cases).index(name)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(LIMIT)
    try:
        if link is None:
            cases[name]()
        else:
            getattr(cases[name], side)(link)
    except Exception:  # noqa: BLE001  the next case runs in any case
        say("failed:", *traceback.format_exc().splitlines()[-3:])
    finally:
        signal.alarm(0)
        gc.collect()  # what it left open
    return list(said)


def info(sock: socket.socket) -> int:
    """The state in TCP_INFO."""
    return int(struct.unpack_from("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192))[0])
