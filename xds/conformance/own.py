"""Our own client as a subject: the ADS client and the translation, without daemon and kernel.

    python -m appswitch.xds.conformance.own ADDRESS MODE NODE FILE

FILE is rewritten whole with every configuration: a line `VIP:port endpoint` for each endpoint in force.
A probe is then: sed -n "s/^VIP:port //p" FILE
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from appswitch.xds.ads import Config, Ignored, Rejected, Withheld
from appswitch.xds.client import Client
from appswitch.xds.conformance.transcript import Mode
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.requests import NodeInfo
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator
from appswitch.xds.transport import Transport

Applied = Mapping[str, frozenset[str]]
"""Endpoints by VIP:port."""


def applied(translation: Translation) -> Applied:
    """What a program would find at each VIP."""
    return {
        f"{address}:{vservice.ports[0].port}": frozenset(
            f"{backend.address}:{backend.port}" for backend in vservice.backends
        )
        for vservice in translation.vservices
        for address in vservice.addresses
    }


def write(path: Path, now: Applied) -> None:
    """Whole, or not at all."""
    lines = (f"{target} {endpoint}\n" for target, found in sorted(now.items()) for endpoint in sorted(found))
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(lines), encoding="utf-8")
    fresh.rename(path)


@dataclass(slots=True)
class Own:
    """Hears what the client says, and keeps what is in force."""

    put: Callable[[Applied], None]
    """Called with everything that is in force, before the push is acknowledged."""
    say: Callable[[str], None]
    translator: Translator = field(default_factory=Translator)

    async def publish(self, config: Config) -> None:
        """Translate, and put in force."""
        self.put(applied(self.translator.translate(config)))

    def connected(self) -> None:
        """A stream is open."""
        self.say("connected")

    def disconnected(self, reason: str, delay: float) -> None:
        """A stream ended."""
        self.say(f"disconnected: {reason}; next try in {delay:.1f} s")

    def rejected(self, rejected: Rejected | Ignored | Withheld) -> None:
        """Something of a response was not taken, or is not sent."""
        self.say(repr(rejected))

    def fell_back(self, reason: str) -> None:
        """Never: `fall_back` is off."""
        self.say(f"fell back: {reason}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What our client is made of: a test puts others in their place."""

    client: type[Client] = Client
    dialogues: Mapping[Mode, Callable[[], Dialogue]] = field(
        default_factory=lambda: {Mode.SOTW: Sotw, Mode.DELTA: Delta}
    )
    translator: Callable[[], Translator] = Translator
    listener: type[Own] = Own
    transport: Callable[[str], Transport] = Transport
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def build(
        self, address: str, mode: Mode, node: str, put: Callable[[Applied], None], say: Callable[[str], None]
    ) -> Client:
        """A client that is ready to run."""
        own = self.listener(put, say, self.translator())
        dialogue = self.dialogues[mode]()
        return self.client(self.transport(address), NodeInfo(node), own, dialogue, self.sleep)


async def run(parts: Parts, address: str, mode: str, node: str, file: str) -> None:
    """Until SIGTERM."""
    path = Path(file)
    client = parts.build(
        address, Mode(mode), node, lambda now: write(path, now), lambda text: print(text, flush=True)
    )
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await client.run()


def main(arguments: list[str], parts: Parts | None = None) -> int:
    """The process; `parts`: another client than ours."""
    address, mode, node, file = arguments
    asyncio.run(run(parts or Parts(), address, mode, node, file))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
