"""Packets over Unix SOCK_SEQPACKET sockets under asyncio, with descriptors and credentials.

asyncio's own socket calls carry no SCM_RIGHTS; here a reader or writer callback does the system call.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from appswitch.errors import InvalidInput

SO_PEERPIDFD: Final = 77
"""Linux 6.5; Python has no name for it yet."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as it was when it connected."""

    pid: int
    """0: a process of a pid namespace that is not below ours."""
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Packet:
    """One message."""

    data: bytes
    """Empty: the other side has closed."""
    descriptors: tuple[int, ...]
    """The receiver's to close."""

    def close(self) -> None:
        """Close the descriptors that came along."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Channel:
    """One end of a connected SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def peer(self) -> Peer:
        """The other side's credentials (SO_PEERCRED, unix(7))."""
        size = struct.calcsize("3i")
        return Peer(*struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))

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
        try:
            data, received, flags, _ = socket.recv_fds(self._sock, limit, 8, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return Packet(b"", ())
        packet = Packet(data, tuple(received))
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            packet.close()
            raise InvalidInput(f"message of more than {limit} bytes or with too many descriptors")
        return packet

    def send(self, text: str) -> bool:
        """Send one packet at once; False: the other side is gone or does not read (its queue is empty
        when we answer, so that a full one means bad faith)."""
        try:
            self._sock.send(text.encode(), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close our end."""
        self._sock.close()

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
