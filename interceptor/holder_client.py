"""The daemon's side of the holder's socket: blocking calls with a deadline, typed errors.

Every call is one packet there and one back.  The holder answers within microseconds, so that an asyncio
daemon may call this directly; a hung holder costs `timeout`.  One client belongs to one thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType

from appswitch.errors import Unavailable
from appswitch.interceptor import inject_wire as wire


@dataclass(frozen=True, slots=True)
class Held:
    """An app in the holder's care, with our own copy of its notify descriptor."""

    id: int
    class_index: int
    ip: IPv4Address
    fd: int
    """Ours to close."""


@dataclass(frozen=True, slots=True)
class Holding:
    """All that a successor needs, should this holder die: `add` every app, then `adopt` the memfd."""

    pid: int
    """Of the holder."""
    revision: int
    """Of its code (wire.REVISION)."""
    flight: int
    """memfd with the calls that are received and not yet answered; ours to close, -1 for none."""
    apps: tuple[Held, ...]

    def close(self) -> None:
        """Closes all descriptors."""
        for descriptor in (self.flight, *(app.fd for app in self.apps)):
            if descriptor >= 0:
                os.close(descriptor)


def add_request(app_id: int, class_index: int, ip: IPv4Address) -> wire.Request:
    """See `HolderClient.add`."""
    return wire.Request(wire.VERSION, add=wire.AppRecord(app_id, class_index, str(ip)))


def nest_request(filter_id: int, app_id: int, class_index: int, ip: IPv4Address, cgroup: str) -> wire.Request:
    """See `HolderClient.nest`."""
    return wire.Request(
        wire.VERSION, nest=wire.Nest(filter_id, wire.AppRecord(app_id, class_index, str(ip)), cgroup)
    )


def remove_request(app_id: int) -> wire.Request:
    """See `HolderClient.remove`."""
    return wire.Request(wire.VERSION, remove=wire.Remove(app_id))


def adopt_request() -> wire.Request:
    """See `HolderClient.adopt`."""
    return wire.Request(wire.VERSION, adopt=wire.Adopt())


class HolderClient:
    """A connection to the holder.

    Every method raises Unavailable when it does not answer in time or is gone (connect anew then),
    InvalidInput when either side sent what the other cannot read, Unsupported for a foreign version.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def connect(cls, run_dir: Path, timeout: float = 2.0) -> HolderClient:
        """Connects to RUN_DIR/holder.sock.  `timeout` in seconds holds for this and for every later call.

        Raises Unavailable: no holder listens there.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(timeout)
        path = run_dir / wire.SOCKET_NAME
        try:
            sock.connect(str(path))
        except OSError as error:
            sock.close()
            raise Unavailable(f"no holder at {path}: {error.strerror or error}") from error
        return cls(sock)

    def add(self, app_id: int, class_index: int, ip: IPv4Address, notify_fd: int) -> None:
        """Hands an app over; the holder gets its own copy of `notify_fd`.  One it has already is replaced."""
        self._ask(add_request(app_id, class_index, ip), [notify_fd])

    def nest(self, filter_id: int, app_id: int, class_index: int, ip: IPv4Address, cgroup: str) -> None:
        """Tells of an app that runs inside another: `cgroup` tells its callers from the others.

        The other may be added later.
        """
        self._ask(nest_request(filter_id, app_id, class_index, ip, cgroup))

    def remove(self, app_id: int) -> None:
        """Makes the holder forget an app.  Raises NotFound: it has none of this id (any more)."""
        self._ask(remove_request(app_id))

    def adopt(self, flight: int) -> int:
        """Has the calls answered that a dead holder left in its memfd; `add` the apps first.

        Returns how many there were.
        """
        return self._ask(adopt_request(), [flight])[0].answered

    def holding(self) -> Holding:
        """All apps that it holds, and copies of all descriptors."""
        flight, after = -1, 0
        apps: list[Held] = []
        with contextlib.ExitStack() as undo:
            while True:
                reply, descriptors = self._ask(wire.Request(wire.VERSION, list=wire.List(after)))
                for descriptor in descriptors:
                    undo.callback(os.close, descriptor)
                if len(descriptors) != len(reply.apps) + (after == 0):
                    raise Unavailable("holder: descriptors are missing from its list")
                if after == 0:
                    flight, *descriptors = descriptors
                apps += (
                    Held(app.id, app.class_index, app.address, descriptor)
                    for app, descriptor in zip(reply.apps, descriptors, strict=True)
                )
                if not reply.more or not reply.apps:
                    undo.pop_all()
                    return Holding(reply.pid, reply.revision, flight, tuple(apps))
                after = reply.apps[-1].id

    def close(self) -> None:
        """Ends the connection; the holder goes on."""
        self._sock.close()

    def __enter__(self) -> HolderClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when an answer waits."""
        return self._sock.fileno()

    def _ask(self, request: wire.Request, descriptors: Sequence[int] = ()) -> tuple[wire.Reply, list[int]]:
        self.send(request, descriptors)
        return self.receive()

    def send(self, request: wire.Request, descriptors: Sequence[int] = ()) -> None:
        """The first half of a call, for a caller that does not want to wait; `receive` is the second."""
        try:
            socket.send_fds(self._sock, [wire.encode(request)], list(descriptors))
        except OSError as error:
            self._sock.close()
            raise Unavailable(f"the holder does not answer: {error}") from error

    def receive(self) -> tuple[wire.Reply, list[int]]:
        """The answer, and the descriptors that came along, the caller's to close."""
        try:
            data, received, whole = wire.receive(self._sock)
        except OSError as error:
            self._sock.close()  # an answer that comes late would be taken for the next one's
            raise Unavailable(f"the holder does not answer: {error}") from error
        with contextlib.ExitStack() as undo:
            for descriptor in received:
                undo.callback(os.close, descriptor)
            if not data:
                raise Unavailable("the holder has closed the connection")
            if not whole:
                raise Unavailable("the holder's answer was cut short")
            reply = wire.decode_reply(data)
            if reply.error is not None:
                raise wire.error_of(reply.error)
            undo.pop_all()
        return reply, received
