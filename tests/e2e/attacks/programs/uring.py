"""io_uring by hand, one request at a time: what it does passes no seccomp filter.  io_uring(7)."""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

SENDMSG, CONNECT, SOCKET = 9, 16, 45
_SETUP, _ENTER = 425, 426
libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Ring:
    """A ring of one entry."""

    def __init__(self) -> None:
        params = bytearray(120)
        buffer = (ctypes.c_char * 120).from_buffer(params)
        self.fd = _call(_SETUP, 1, buffer)
        sq = struct.unpack_from("=8I", params, 40)  # io_sqring_offsets: head, tail, mask, entries, ..., array
        cq = struct.unpack_from("=8I", params, 80)
        self._sq_tail, self._sq_array = sq[1], sq[6]
        self._cq_head, self._cq_tail, self._cq_mask, self._cqes = cq[0], cq[1], cq[2], cq[5]
        self._sq = mmap.mmap(self.fd, 4096, offset=0)
        self._cq = mmap.mmap(self.fd, 4096, offset=0x8000000)
        self._sqes = mmap.mmap(self.fd, 4096, offset=0x10000000)

    def do(self, op: int, fd: int, address: int = 0, length: int = 0, offset: int = 0, flags: int = 0) -> int:
        """One request to its end; raises OSError with its error."""
        self._sqes[:64] = struct.pack("=BBHiQQII32x", op, 0, 0, fd, offset, address, length, flags)
        (tail,) = struct.unpack_from("=I", self._sq, self._sq_tail)
        struct.pack_into("=I", self._sq, self._sq_array, 0)
        struct.pack_into("=I", self._sq, self._sq_tail, tail + 1)
        _call(_ENTER, self.fd, 1, 1, 1, None, 0)
        (head,) = struct.unpack_from("=I", self._cq, self._cq_head)
        (mask,) = struct.unpack_from("=I", self._cq, self._cq_mask)
        _, result, _ = struct.unpack_from("=QiI", self._cq, self._cqes + 16 * (head & mask))
        struct.pack_into("=I", self._cq, self._cq_head, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)

    def close(self) -> None:
        """Ends the ring."""
        self._sq.close()
        self._cq.close()
        self._sqes.close()
        os.close(self.fd)


@contextmanager
def ring() -> Iterator[Ring]:
    """A ring for a while."""
    made = Ring()
    try:
        yield made
    finally:
        made.close()


def raw_address(family: int, host: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H4s8x", port, socket.inet_aton(host))
    name, _, zone = host.partition("%")
    scope = socket.if_nametoindex(zone) if zone else 0
    packed = socket.inet_pton(family, name)
    return struct.pack("=H", family) + struct.pack("!HI16s", port, 0, packed) + struct.pack("=I", scope)


def connect(sock: socket.socket, host: str, port: int) -> None:
    """IORING_OP_CONNECT."""
    raw = raw_address(sock.family, host, port)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    with ring() as made:
        made.do(CONNECT, sock.fileno(), ctypes.addressof(buffer), offset=len(raw))


def sendto(sock: socket.socket, data: bytes, host: str, port: int) -> None:
    """IORING_OP_SENDMSG with a destination."""
    raw = raw_address(sock.family, host, port)
    name, payload = ctypes.create_string_buffer(raw, len(raw)), ctypes.create_string_buffer(data, len(data))
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(payload), len(data)), 16)
    header = struct.pack(
        "=QIxxxxQQQQixxxx", ctypes.addressof(name), len(raw), ctypes.addressof(vector), 1, 0, 0, 0
    )
    message = ctypes.create_string_buffer(header, len(header))
    with ring() as made:
        made.do(SENDMSG, sock.fileno(), ctypes.addressof(message), 1)


def new_socket(family: int, kind: int) -> socket.socket:
    """IORING_OP_SOCKET: no socket(2), so no filter sees it."""
    with ring() as made:
        return socket.socket(fileno=made.do(SOCKET, family, length=0, offset=kind))
