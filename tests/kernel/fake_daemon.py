"""The daemon's side of a launch, scripted: it answers what a test says and keeps what it got."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OK = b"ok\nid=f00001bb\n"
DEADLINE = 10.0
NOTIFY_RECEIVE, NOTIFY_SEND = 0xC0502100, 0xC0182101  # linux/seccomp.h: sizes 80 and 24
TRAPPED = errno.ENOMSG
"""What the fake answers a trapped socket() with: no kernel does, so it proves the trap."""


class FakeDaemon:
    """Serves launches one after the other until closed."""

    def __init__(self, run_dir: Path, *, reply: bytes | None = OK, go: bytes | None = b"go\n") -> None:
        self._reply, self._go = reply, go
        self.hellos: list[bytes] = []
        self.messages: list[tuple[bytes, int]] = []
        """What came after the hello, and how many descriptors came with it."""
        self.peers: list[tuple[int, int, int]] = []
        """(pid, uid, gid) of each launcher."""
        self.trapped: list[tuple[int, int, int]] = []
        """Arguments of the socket() calls that the filter sent here."""
        self._stop_reader, self._stop = os.pipe()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(run_dir / "daemon.sock"))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def hello(self) -> dict[str, Any]:
        """The only hello, decoded."""
        (hello,) = self.hellos
        decoded: dict[str, Any] = json.loads(hello)
        return decoded

    def close(self) -> None:
        os.close(self._stop)
        self._thread.join(DEADLINE)
        self._listener.close()
        os.close(self._stop_reader)

    def _serve(self) -> None:
        notify: list[int] = []
        while True:
            ready, _, _ = select.select([self._listener, self._stop_reader, *notify], [], [])
            if self._stop_reader in ready:
                break
            if self._listener in ready:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(DEADLINE)
                    notify += self._launch(connection)
            for descriptor in set(notify) & set(ready):
                if not self._answer(descriptor):
                    notify.remove(descriptor)
                    os.close(descriptor)
        for descriptor in notify:
            os.close(descriptor)

    def _launch(self, connection: socket.socket) -> list[int]:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.peers.append(struct.unpack("3i", credentials))
        self.hellos.append(connection.recv(1 << 20))
        if self._reply is None:
            return []
        connection.send(self._reply)
        text, descriptors, _, _ = socket.recv_fds(connection, 100, 4)
        if text:
            self.messages.append((text, len(descriptors)))
        if text and self._go is not None:
            connection.send(self._go)
        return descriptors

    def _answer(self, notify: int) -> bool:
        """Refuses one trapped call; False when the program has ended."""
        call = bytearray(80)
        try:
            fcntl.ioctl(notify, NOTIFY_RECEIVE, call)
            identity, _, _, _, _, _, *arguments = struct.unpack_from("QIIiIQ3Q", call)
            fcntl.ioctl(notify, NOTIFY_SEND, struct.pack("QqiI", identity, 0, -TRAPPED, 0))
        except OSError:
            return False
        family, kind, protocol = (value & 0xFFFFFFFF for value in arguments)
        self.trapped.append((family, kind, protocol))
        return True


@contextlib.contextmanager
def fake_daemon(
    run_dir: Path, *, reply: bytes | None = OK, go: bytes | None = b"go\n"
) -> Iterator[FakeDaemon]:
    """A daemon for the block; `reply` None hangs up after the hello, `go` None after the filter."""
    daemon = FakeDaemon(run_dir, reply=reply, go=go)
    try:
        yield daemon
    finally:
        daemon.close()
