"""Where REST listens: a Unix socket for everything, TCP on loopback for reading."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from aiohttp import web

from appswitch.agent.api import Failed, State, application
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import Conflict, Unsupported

GROUP: Final = "appswitch"
"""Members may make changes; where there is no such group, root alone."""
SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that requests under way get when the daemon ends."""
KEEP_ALIVE: Final = 10.0
"""Seconds between two requests on one connection."""
BACKLOG: Final = 128
MAX_PUBLIC: Final = 64
"""TCP connections; with one more the oldest is closed, so that nobody keeps others out by silence."""
MAX_LOCAL: Final = 512
"""The same on the Unix socket, whose users are trusted: a bound on descriptors."""


class Rest:
    """Both listeners.  The caller owns the run directory (its lock), so a socket found there is stale."""

    def __init__(self, state: State, version: str, path: Path, port: int, failed: Failed) -> None:
        """`port` 0: no TCP."""
        self._path, self._port = path, port
        self._public = ThreadPoolExecutor(1, thread_name_prefix="rest-public")
        """One long answer at a time for whoever asks over TCP: launches wait for threads too."""
        self._runners = [
            web.AppRunner(
                application(state, version, writable=writable, failed=failed, executor=executor),
                access_log=None,
                shutdown_timeout=SHUTDOWN_TIMEOUT,
                handle_signals=False,
                keepalive_timeout=KEEP_ALIVE,
            )
            for writable, executor in ((True, None), (False, self._public))
        ]
        self._listeners: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._inode = 0

    async def start(self) -> None:
        """Listen.  Raises Conflict (port taken, something else at the path), Unsupported."""
        local, public = self._runners
        await local.setup()
        listener = _bind_unix(self._path)
        self._inode = self._path.stat().st_ino
        self._serve(listener, local, MAX_LOCAL)
        if not self._port:
            return
        await public.setup()
        try:
            listener = socket.create_server(("127.0.0.1", self._port), backlog=BACKLOG)
        except OSError as error:
            await self.close()
            raise Conflict(
                f"REST port {self._port} cannot be listened on ({os.strerror(error.errno or 0)}): "
                "choose another with --rest-port, or 0 for none"
            ) from error
        self._serve(listener, public, MAX_PUBLIC)

    def _serve(self, listener: socket.socket, runner: web.AppRunner, most: int) -> None:
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listeners.append(listener)
        self._tasks.append(spawn("rest", _accept(listener, runner, most)))

    async def close(self) -> None:
        """Stop listening, let requests under way end, remove the socket if it is still ours."""
        await stop(self._tasks)
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()
        self._public.shutdown(wait=False, cancel_futures=True)
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass


async def _accept(listener: socket.socket, runner: web.AppRunner, most: int) -> None:
    """Serve whoever comes, and at most so many at once."""
    loop, serve = asyncio.get_running_loop(), runner.server
    assert serve is not None  # after setup()
    served: list[asyncio.BaseTransport] = []
    while True:
        try:
            sock, _ = await loop.sock_accept(listener)
            transport, _ = await loop.connect_accepted_socket(serve, sock)
        except OSError:  # it has gone again, or descriptors are short: that passes
            await asyncio.sleep(0.1)
            continue
        served = [other for other in served if not other.is_closing()] + [transport]
        if len(served) > most and isinstance(oldest := served.pop(0), asyncio.Transport):
            oldest.abort()


def _bind_unix(path: Path) -> socket.socket:
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Linux gives the file the socket's own mode (less the umask): at no moment is it open to everybody.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        if os.geteuid() == 0:
            try:
                os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
            except KeyError:
                pass
        path.chmod(0o660)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {path}: {error.strerror or error}"
        raise (Conflict if path.exists() else Unsupported)(message) from error
    return listener
