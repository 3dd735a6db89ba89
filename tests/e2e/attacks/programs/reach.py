"""Tries to reach ADDRESS PORT in every way there is: `reach.py ADDRESS PORT MARK ...` (threes).

Each way sends the text MARK/WAY if it gets through.  Prints {MARK/WAY: errno name or "sent"} as JSON.
"""

import errno
import json
import select
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import uring

FASTOPEN = 0x20000000  # MSG_FASTOPEN
MPTCP = 262
Way = Callable[[socket.socket, tuple[str, int], bytes], None]


def target(sock: socket.socket, to: tuple[str, int]) -> tuple[object, ...]:
    """With the scope, where `to` has one."""
    host, port = to
    if sock.family == socket.AF_INET:
        return host, port
    name, _, zone = host.partition("%")
    return name, port, 0, socket.if_nametoindex(zone) if zone else 0


def plain(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """connect(), send()."""
    sock.connect(target(sock, to))
    sock.send(text)


def nonblocking(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """connect() that is waited for by poll()."""
    sock.setblocking(False)
    error = sock.connect_ex(target(sock, to))
    if error not in (0, errno.EINPROGRESS):
        raise OSError(error, "")
    select.select([], [sock], [], 2)
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, "")
    sock.send(text)


def fast_open(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """sendto() that connects."""
    sock.sendto(text, FASTOPEN, target(sock, to))


def fast_open_later(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """connect() that does nothing until the first send()."""
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    plain(sock, to, text)


def by_ring(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """io_uring connects."""
    uring.connect(sock, *to)
    sock.send(text)


def dissolved(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """A second connect() after AF_UNSPEC has dissolved a first one to where policy lets us go."""
    if allowed:
        sock.connect(target(sock, mapped(sock, allowed)))
        uring.libc.connect(sock.fileno(), struct.pack("=H26x", socket.AF_UNSPEC), 28)
    plain(sock, to, text)


def unconnected(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """sendto()."""
    sock.sendto(text, target(sock, to))


def message(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """sendmsg()."""
    sock.sendmsg([text], [], 0, target(sock, to))


def many(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """sendmmsg(): the first goes to where policy lets us go, the second to the target."""
    ctypes = uring.ctypes
    headers, keep = b"", []
    for number, where in enumerate([mapped(sock, allowed) if allowed else to, to]):
        raw = uring.raw_address(sock.family, *where)
        data = text if number else b"decoy"
        name, payload = (ctypes.create_string_buffer(x, len(x)) for x in (raw, data))
        vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(payload), len(data)), 16)
        keep += [name, payload, vector]
        headers += struct.pack(
            "=QIxxxxQQQQixxxxixxxx", ctypes.addressof(name), len(raw), ctypes.addressof(vector), 1, 0, 0, 0, 0
        )
    array = ctypes.create_string_buffer(headers, len(headers))
    sent = uring.libc.sendmmsg(sock.fileno(), array, 2, 0)
    if sent != 2:
        raise OSError(ctypes.get_errno() if sent < 0 else 0, f"sent {max(sent - 1, 0)}")


def ring_message(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """io_uring sends."""
    uring.sendto(sock, text, *to)


def re_aimed(sock: socket.socket, to: tuple[str, int], text: bytes) -> None:
    """A connected socket that sends elsewhere."""
    if allowed:
        sock.connect(target(sock, mapped(sock, allowed)))
    sock.sendto(text, target(sock, to))


STREAM: dict[str, Way] = {
    "tcp": plain,
    "nonblocking": nonblocking,
    "fastopen": fast_open,
    "fastopen-later": fast_open_later,
    "ring": by_ring,
    "dissolved": dissolved,
}
DATAGRAM: dict[str, Way] = {
    "udp": plain,
    "sendto": unconnected,
    "sendmsg": message,
    "sendmmsg": many,
    "udp-ring": ring_message,
    "re-aimed": re_aimed,
    "udp-dissolved": dissolved,
}


def mapped(sock: socket.socket, to: tuple[str, int]) -> tuple[str, int]:
    """`to` as this socket writes it."""
    return (f"::ffff:{to[0]}" if sock.family == socket.AF_INET6 and ":" not in to[0] else to[0]), to[1]


def made(family: int, way: str) -> socket.socket:
    """The socket for a way."""
    kind = socket.SOCK_STREAM if way in STREAM or way == "mptcp" else socket.SOCK_DGRAM
    return socket.socket(family, kind, MPTCP if way == "mptcp" else 0)


def attempt(way: str, to: tuple[str, int], mark: str) -> str:
    """What came of one way."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    try:
        with made(family, way) as sock:
            sock.settimeout(3)
            run = STREAM.get(way) or DATAGRAM.get(way) or plain
            run(sock, to, f"{mark}/{way}".encode())
        return "sent"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, error.strerror or "timeout")


allowed: tuple[str, int] | None = None
arguments = sys.argv[1:]
if arguments[0] == "--allowed":
    allowed = arguments[1], int(arguments[2])
    arguments = arguments[3:]
found = {}
for at in range(0, len(arguments), 3):
    host, port, name = arguments[at : at + 3]
    for each in (*STREAM, *DATAGRAM, "mptcp"):
        found[f"{name}/{each}"] = attempt(each, (host, int(port)), name)
print(json.dumps(found))
