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
import time
from collections.abc import Sequence
from pathlib import Path

from appswitch.agent.istio import IstioAgent
from appswitch.agent.istio_line import Line
from appswitch.agent.istio_options import IstioOptions, decode
from appswitch.agent.profiling import Profile, kept, profiled
from appswitch.errors import Unavailable


async def run(descriptor: int, options: IstioOptions, profile: Profile) -> None:
    """Until the daemon's end of the socket closes: the process ends at once, only a profile is saved."""

    def end() -> None:
        try:
            profile.close()
        finally:
            os._exit(0)

    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    line = Line(reader, writer)
    agent = IstioAgent(options, line.apply, line, os.environ, line.unsupported)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)

    async def obey() -> None:
        await line.listen(lambda wanted: agent.answer(wanted, time.monotonic()))
        end()

    await asyncio.gather(agent.run(), obey())


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
