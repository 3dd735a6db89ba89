"""The Istio agent's own process: a push of megabytes costs the daemon no time, and its libraries no start.

    python -m appswitch.agent.istio_process DESCRIPTOR OPTIONS CPU-FILE MEM-FILE

DESCRIPTOR is a connected stream socket to the daemon (`istio_wire.py`); its end is this process's end.
OPTIONS are JSON (`istio_options.py`).
The last two are files, or empty (`profiling.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from appswitch.agent import istio_wire as wire
from appswitch.agent.istio import IstioAgent, IstioTable
from appswitch.agent.istio_options import IstioOptions, decode
from appswitch.agent.logs import Event, Log, plain
from appswitch.agent.profiling import Profile, kept, profiled
from appswitch.errors import Unavailable
from appswitch.xds.resources import Unsupported

DEADLINE: Final = 60.0
"""Seconds until the daemon has a table in force; a first one of 10,000 services takes it about two."""


class Line(Log):
    """The socket to the daemon, which is also where events go."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(None)
        sock.settimeout(DEADLINE)
        self._sock = sock
        self._differ = wire.Differ()

    def __call__(self, event: Event, **fields: Any) -> None:
        self._send(
            wire.Report(wire.VERSION, event=event.label, fields={k: plain(v) for k, v in fields.items()})
        )

    def apply(self, table: IstioTable) -> None:
        """Hand a table over; returns when it is in force.  Raises Unavailable."""
        self._send(wire.Report(wire.VERSION, self._differ.change(table.mesh)))
        try:
            if self._sock.recv(1) == wire.TAKEN:
                return
        except OSError as error:
            raise Unavailable(f"the daemon does not take a table: {error}") from error
        raise Unavailable("the daemon has gone")

    def unsupported(self, items: tuple[Unsupported, ...]) -> None:
        """Hand over what is asked for and not done.  Raises Unavailable."""
        rows = tuple((item.field, item.resource, item.object, item.instead) for item in items)
        self._send(wire.Report(wire.VERSION, unsupported=rows))

    def _send(self, report: wire.Report) -> None:
        try:
            self._sock.sendall(wire.frame(report))
        except OSError as error:
            raise Unavailable(f"the daemon has gone: {error}") from error


async def run(descriptor: int, options: IstioOptions, profile: Profile) -> None:
    """Until the daemon's end of the socket closes: the process ends at once, only a profile is saved."""

    def end() -> None:
        try:
            profile.close()
        finally:
            os._exit(0)

    with socket.socket(fileno=descriptor) as sock:
        line = Line(sock)
        # Nothing but answers comes, and `apply` takes those at once: what is readable here is the end.
        asyncio.get_running_loop().add_reader(sock, end)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        await IstioAgent(options, line.apply, line, os.environ, line.unsupported).run()


def main(arguments: Sequence[str]) -> int:
    """The process.  Exit code 0: the daemon ended it."""
    descriptor, text, cpu, memory = arguments
    try:
        with profiled(Path(cpu) if cpu else None, Path(memory) if memory else None) as profile:
            asyncio.run(kept(profile, run(int(descriptor), decode(text), profile)))
    except (Unavailable, KeyboardInterrupt):
        pass  # the daemon has gone
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
