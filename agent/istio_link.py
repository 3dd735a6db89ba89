"""The daemon's side of the Istio agent: starts its process, takes its tables and events."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from appswitch.agent import istio_wire as wire
from appswitch.agent.istio_options import IstioOptions, encode
from appswitch.agent.logs import Log
from appswitch.agent.resource_unsupported import Row
from appswitch.errors import Unavailable
from appswitch.model import Mesh


@dataclass(frozen=True, slots=True)
class IstioLink:
    """One Istio agent."""

    options: IstioOptions
    apply: Callable[[Mesh], Awaitable[None]]
    """Puts a table in force; the push is acknowledged when it returns."""
    report: Callable[[tuple[Row, ...]], None]
    """Hears what Istiod asks for and is not done."""
    log: Log
    profiles: tuple[Path | None, Path | None] = (None, None)
    """Files of the agent's own CPU and memory profile."""

    async def run(self) -> None:
        """Run until cancelled.  Raises Unavailable when the process ends, InvalidInput for what it says.

        The last table stays in force.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptor = str(theirs.fileno())
        arguments = [descriptor, encode(self.options), *(str(path or "") for path in self.profiles)]
        command = [sys.executable, "-P", "-m", "appswitch.agent.istio_process", *arguments]
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220  fork and exec alone, at start
                command, stdin=subprocess.DEVNULL, cwd="/", pass_fds=[theirs.fileno()]
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        try:
            await self._take(reader, writer)
        finally:
            writer.close()
            process.terminate()
            await _ended(process)
        raise Unavailable(f"the Istio agent ended with status {process.returncode}")

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reports until the other side closes."""
        merger = wire.Merger()
        while True:
            try:
                header = await reader.readexactly(wire.HEADER)
                report = wire.decode(await reader.readexactly(wire.length(header)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if report.event:
                self.log.note(report.event, **report.fields)
            if report.unsupported is not None:
                self.report(report.unsupported)
            if report.change is not None:
                await self.apply(merger.merge(report.change))
                writer.write(wire.TAKEN)


async def _ended(process: subprocess.Popen[bytes], within: float = 3.0) -> None:
    """Wait for the process's end; make it end if it does not."""
    for _ in range(round(within / 0.02)):
        if process.poll() is not None:
            return
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
