"""Where REST listens: a Unix socket for everything, TCP on loopback for reading."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path
from typing import Final

from aiohttp import web

from appswitch.agent.api import Failed, State, application
from appswitch.errors import Conflict, Unsupported

GROUP: Final = "appswitch"
"""Members may make changes; where there is no such group, root alone."""
SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that requests under way get when the daemon ends."""


class Rest:
    """Both listeners.  The caller owns the run directory (its lock), so a socket found there is stale."""

    def __init__(self, state: State, version: str, path: Path, port: int, failed: Failed) -> None:
        """`port` 0: no TCP."""
        self._path, self._port = path, port
        self._runners = [
            web.AppRunner(
                application(state, version, writable=writable, failed=failed),
                access_log=None,
                shutdown_timeout=SHUTDOWN_TIMEOUT,
                handle_signals=False,
            )
            for writable in (True, False)
        ]
        self._inode = 0

    async def start(self) -> None:
        """Listen.  Raises Conflict (port taken, something else at the path), Unsupported."""
        local, public = self._runners
        await local.setup()
        listener = _bind_unix(self._path)
        self._inode = self._path.stat().st_ino
        await web.SockSite(local, listener).start()
        if not self._port:
            return
        await public.setup()
        try:
            await web.TCPSite(public, "127.0.0.1", self._port).start()
        except OSError as error:
            await self.close()
            raise Conflict(
                f"REST port {self._port} cannot be listened on ({error.strerror}): "
                "choose another with --rest-port, or 0 for none"
            ) from error

    async def close(self) -> None:
        """Stop listening, let requests under way end, remove the socket if it is still ours."""
        for runner in self._runners:
            await runner.cleanup()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass


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
