"""Plays a recording to any ADS client: the program around `replay`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.model import VService
from appswitch.xds.recording import Outcome, Recording, load, walk
from appswitch.xds.replay import ReplayServer, server
from appswitch.xds.translate import Translator

HELP = """\
Commands, one a line on standard input: an empty line or `next` goes to the next step, a step's name goes
there, `quit` ends.  SIGUSR1 goes to the next step too.  At the end of the input it goes on serving."""


def main(argv: list[str], folder: Path | None = None) -> int:
    """Run the program; `folder`: the recording where the command line does not name one."""
    parser = argparse.ArgumentParser(
        description="Serve a recorded Istiod, step by step.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?" if folder else None, default=folder, type=Path)
    parser.add_argument("--port", type=int, default=15010, help="on 127.0.0.1; 0: any (default: 15010)")
    parser.add_argument("--list", action="store_true", help="print each step's vservices, serve nothing")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    options = parser.parse_args(argv)
    try:
        recording = load(options.folder)
        if options.json:
            print(json.dumps([_as_json(outcome) for outcome in _outcomes(recording)], indent=1))
        elif options.list:
            print("\n".join(_lines(recording)))
        else:
            asyncio.run(_play(recording, options.port))
    except AppSwitchError as error:
        print(f"replay: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _outcomes(recording: Recording) -> Iterator[Outcome]:
    return walk(recording, Translator())


def _lines(recording: Recording) -> Iterator[str]:
    """What is where, for people: which pods a demonstration needs, and which VIPs lead to them."""
    for outcome in _outcomes(recording):
        yield f"{outcome.step} ({outcome.translation.outbound})"
        for vservice in outcome.translation.vservices:
            vips = ",".join(f"{address}:{vservice.ports[0].port}" for address in vservice.addresses)
            backends = ", ".join(f"{b.address}:{b.port} ({b.weight})" for b in vservice.backends)
            yield f"  {vservice.name:<46} {vips:<18} -> {backends or 'nobody'}"


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "step": outcome.step,
        "outbound": outcome.translation.outbound,
        "vservices": [_vservice_json(vservice) for vservice in outcome.translation.vservices],
        "names": {
            name: [str(address) for address in addresses] for name, addresses in outcome.translation.names
        },
    }


def _vservice_json(vservice: VService) -> dict[str, object]:
    return {
        "name": vservice.name,
        "addresses": [str(address) for address in vservice.addresses],
        "port": vservice.ports[0].port,
        "backends": [
            {"address": str(backend.address), "port": backend.port, "weight": backend.weight}
            for backend in vservice.backends
        ],
    }


async def _play(recording: Recording, port: int) -> None:
    """Serve until told to quit, or by SIGINT or SIGTERM."""
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, commands.put_nowait, "next")
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, commands.put_nowait, "quit")

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, line.strip() or "next")

    replay = server(recording, lambda line: print(f"  {line}", flush=True))
    bound = await replay.start(port)
    print(f"serving {recording.name} on 127.0.0.1:{bound}; step {recording.steps[0].name}", flush=True)
    # A thread of its own that nobody waits for: asyncio cannot watch a file or /dev/null.
    threading.Thread(target=read, daemon=True).start()
    try:
        while (command := await commands.get()) != "quit":
            await _go(replay, command)
    finally:
        await replay.stop()


async def _go(server: ReplayServer, command: str) -> None:
    """Go to the next step or to a named one."""
    names = [step.name for step in server.recording.steps]
    if command == "next":
        goal = server.step + 1
    elif command in names and names.index(command) > server.step:
        goal = names.index(command)
    else:
        print(
            f"no step {command!r} ahead; there are {', '.join(names[server.step + 1 :]) or 'none'}",
            flush=True,
        )
        return
    while server.step < goal:
        step = await server.advance()
        if step is None:
            print("that was the last step", flush=True)
            return
        print(f"step {step.name}: {len(step.messages)} pushes", flush=True)
    for fault in server.faults:
        print(f"  fault of the client: {fault}", flush=True)
    server.faults.clear()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
