"""The holder's end of its Unix socket: requests in, one reply each, no request can stop the loop."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from appswitch.errors import AppSwitchError, Exhausted, InvalidInput, NotFound, Unsupported
from appswitch.interceptor import inject_wire as wire
from appswitch.interceptor.inject_flight import Flight
from appswitch.interceptor.inject_loop import Loop
from appswitch.interceptor.inject_stock import HeldApp, Owner

NOTIFY_LINK: Final = "anon_inode:seccomp notify"
"""What the link in /proc says of a notify descriptor: a path cannot begin so."""
_CREDENTIALS: Final = struct.Struct("=iII")
"""struct ucred: pid, uid, gid"""
_CODES: Final = {error: code for code, error in wire.ERRORS.items()}


def listen(run_dir: Path) -> socket.socket:
    """RUN_DIR/holder.sock, mode 0600, in place of one left over.  Raises OSError."""
    path = run_dir / wire.SOCKET_NAME
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(8)
    return listener


class Door:
    """Lets clients in."""

    def __init__(self, listener: socket.socket, loop: Loop, log: Callable[..., None]) -> None:
        self._listener = listener
        self._loop = loop
        self._log = log
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        loop.watch(listener.fileno(), self)

    def ready(self, fd: int, events: int) -> None:
        """A client is there.  Only our own user and root are let in."""
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._turn_away():
                self._log("holder-client-refused", error=str(error))
            return
        raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(raw)
        if user not in (0, os.geteuid()):
            self._log("holder-client-refused", user=user)
            client.close()
            return
        client.setblocking(False)
        Session(client, self._loop, self._log)

    def _turn_away(self) -> bool:
        """Out of descriptors: a client left waiting would wake the loop for ever.  False: it still waits."""
        try:
            os.close(self._spare)
            self._listener.accept()[0].close()
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # the client has gone by itself, or the limit was lowered below what is open
        return True


class Session:
    """One client's connection."""

    def __init__(self, client: socket.socket, loop: Loop, log: Callable[..., None]) -> None:
        self._client = client
        self._loop = loop
        self._log = log
        loop.watch(client.fileno(), self)

    def ready(self, fd: int, events: int) -> None:
        """One packet, one reply; the descriptors that came along are ours to keep or to close."""
        try:
            data, descriptors, whole = wire.receive(self._client)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, whole = b"", [], True
        if not data:
            _close(descriptors)
            self._loop.unwatch(fd)
            self._client.close()
            return
        out: list[int] = []
        try:
            if not whole and len(data) < wire.MAX_MESSAGE:
                raise Exhausted("it may open no more descriptors (RLIMIT_NOFILE)")
            if not whole:
                raise InvalidInput(f"the message was cut short (limit {wire.MAX_MESSAGE})")
            reply, out = self._handle(wire.decode_request(data), descriptors)
        except AppSwitchError as error:
            code = _CODES.get(type(error), "refused")
            self._log("holder-request-refused", code=code, error=str(error))
            reply = _reply(error=wire.Failure(code, str(error)))
        except OSError as error:
            self._log("holder-request-refused", code="refused", error=str(error))
            reply = _reply(error=wire.Failure("refused", str(error)))
        finally:
            _close(descriptors)
        try:
            socket.send_fds(self._client, [wire.encode(reply)], out)
        except OSError as error:  # it is gone, or it asks without reading
            self._log("holder-client-lost", error=str(error))
            self._loop.unwatch(fd)
            self._client.close()

    def _handle(self, request: wire.Request, descriptors: list[int]) -> tuple[wire.Reply, list[int]]:
        """Takes what it keeps out of `descriptors`.  Raises AppSwitchError, OSError."""
        if request.version != wire.VERSION:
            raise Unsupported(f"version {request.version} is not spoken here, only {wire.VERSION}")
        expected = int(request.add is not None or request.adopt is not None)
        if len(descriptors) != expected:
            raise InvalidInput(f"{len(descriptors)} descriptors came along, expected {expected}")
        reply = _reply()
        if (record := request.add) is not None:
            if os.readlink(f"/proc/self/fd/{descriptors[0]}") != NOTIFY_LINK:
                raise InvalidInput("the descriptor is not a seccomp notify descriptor")
            self._loop.add(HeldApp(record.id, record.class_index, record.address, descriptors[0]))
            descriptors.clear()
        elif (nest := request.nest) is not None:
            inner = Owner(nest.app.id, nest.app.class_index, nest.app.address)
            self._loop.nest(nest.filter, nest.cgroup, inner)
        elif request.remove is not None:
            app = self._loop.apps.get(request.remove.id)
            if app is not None:
                self._loop.forget(app)
            elif not self._loop.unnest(request.remove.id):
                raise NotFound(f"no app {request.remove.id:08x}")
        elif request.adopt is not None:
            dead = Flight(descriptors[0])
            descriptors.clear()
            try:
                reply = _reply(answered=self._loop.adopt(dead))
            finally:
                dead.close()
        elif request.list is not None:
            return self._list(request.list.after)
        return reply, []

    def _list(self, after: int) -> tuple[wire.Reply, list[int]]:
        ids = sorted(app_id for app_id in self._loop.apps if app_id > after)
        page = [self._loop.apps[app_id] for app_id in ids[: wire.PAGE]]
        records = tuple(wire.AppRecord(app.id, app.class_index, str(app.ip)) for app in page)
        out = [app.fd for app in page]
        if after == 0:
            out.insert(0, self._loop.flight.fd)
        return _reply(apps=records, more=len(ids) > len(page)), out


_reply: Final = partial(wire.Reply, pid=os.getpid(), revision=wire.REVISION)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
