"""Packets over Unix SOCK_SEQPACKET sockets under asyncio, with descriptors and credentials.

asyncio's own socket calls carry no SCM_RIGHTS; here a reader or writer callback does the system call.

Descriptors from others than root are a trap: the last close() of a socket with SO_LINGER, or any of a file on
FUSE, takes as long as its maker likes, also when the kernel drops those that nobody wanted.  What may
close one happens in a thread that nobody waits for.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from appswitch.errors import InvalidInput
from appswitch.interceptor.inject_control import NOTIFY_LINK

SO_PEERPIDFD: Final = 77
"""Linux 6.5; Python has no name for it yet."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as it was when it connected."""

    pid: int
    """0: a process of a pid namespace that is not below ours."""
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """Of a Unix socket: the other side's credentials (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


@dataclass(frozen=True, slots=True)
class Packet:
    """One message."""

    data: bytes
    """Empty: the other side has closed."""
    descriptors: tuple[int, ...]
    """The receiver's to close."""
    later: list[int] | None = None
    """Where those go that may take long to close; None: they are root's."""

    def close(self) -> None:
        """Close the descriptors that came along."""
        if self.later is not None:
            self.later.extend(self.descriptors)
            return
        for descriptor in self.descriptors:
            os.close(descriptor)

    def is_notify(self) -> bool:
        """Whether one descriptor came along, and it is a notify descriptor."""
        links = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in self.descriptors]
        return links == [NOTIFY_LINK]


class Channel:
    """One end of a connected SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._peer = peer_of(sock)
        self._later: list[int] = []

    def peer(self) -> Peer:
        """The other side's credentials."""
        return self._peer

    def pidfd(self, pid: int) -> int:
        """A pidfd of the other side: of the very process where the kernel has SO_PEERPIDFD, else by its id.

        Raises ProcessLookupError: it is gone (and its number may be another's); OSError.
        """
        try:
            return self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:  # before Linux 6.5
                return os.pidfd_open(pid)
            if error.errno in (errno.EINVAL, errno.ENODATA):  # how kernels say that it was reaped
                raise ProcessLookupError(error.errno, f"process {pid} is gone") from error
            raise

    async def receive(self, limit: int, within: float) -> Packet:
        """The next packet of at most `limit` bytes.

        Raises TimeoutError after `within` seconds, InvalidInput for a longer packet or lost descriptors;
        a broken connection is an empty packet.
        """
        async with asyncio.timeout(within):
            await self._readable()
        if not self._peer.uid:
            return _take(self._sock, limit)
        return await _apart(partial(_take, self._sock, limit, self._later))

    def send(self, text: str) -> bool:
        """Send one packet at once; False: the other side is gone or does not read (its queue is empty
        when we answer, so that a full one means bad faith)."""
        try:
            self._sock.send(text.encode(), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def close(self, closed: Callable[[], None] = lambda: None) -> None:
        """Close our end, what is in its queue, and what packets left behind; then `closed` is called."""
        if not self._peer.uid:
            self._sock.close()
            closed()
            return
        loop = asyncio.get_running_loop()

        def body() -> None:
            for descriptor in self._later:
                os.close(descriptor)
            self._sock.close()
            _tell(loop, closed)

        _start(body)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._sock, wake)
        try:
            await ready
        finally:
            loop.remove_reader(self._sock)


def _take(sock: socket.socket, limit: int, later: list[int] | None = None) -> Packet:
    """A packet that waits.  Raises InvalidInput."""
    try:
        data, received, flags, _ = socket.recv_fds(sock, limit, 8, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return Packet(b"", ())
    packet = Packet(data, tuple(received), later)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        packet.close()
        raise InvalidInput(f"message of more than {limit} bytes or with too many descriptors")
    return packet


async def _apart(work: Callable[[], Packet]) -> Packet:
    """What `work` returns or raises, from a thread of its own: the loop's few must not be used up."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Packet] = loop.create_future()

    def finish(set_result: Callable[..., None], value: object) -> None:
        if not result.done():
            set_result(value)

    def body() -> None:
        try:
            packet = work()
        except Exception as error:  # noqa: BLE001  handed on to who waits
            _tell(loop, partial(finish, result.set_exception, error))
        else:
            _tell(loop, partial(finish, result.set_result, packet))

    _start(body)
    return await result


def _start(body: Callable[[], object]) -> None:
    """In a thread that does not keep the daemon from ending."""
    threading.Thread(target=body, name="stranger", daemon=True).start()


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:  # the loop has ended meanwhile
        return
