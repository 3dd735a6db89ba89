"""Plays one script to one client."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from appswitch.errors import Unavailable
from appswitch.xds.conformance.checks import short
from appswitch.xds.conformance.place import Place
from appswitch.xds.conformance.script import (
    SETTLE,
    Back,
    Check,
    End,
    Fault,
    Hold,
    Inapplicable,
    Logs,
    Outage,
    Probe,
    Push,
    Script,
    See,
    Start,
    Step,
    Unbroken,
    Watch,
)
from appswitch.xds.conformance.server import Server
from appswitch.xds.conformance.subject import Subject
from appswitch.xds.conformance.transcript import Transcript

PATIENCE = 15.0
"""Seconds for whatever must be seen."""
PAUSE = 0.05
"""Seconds between two questions to the probe."""
GLANCE = 0.2
"""Seconds between two looks at whether the client lives."""


@dataclass(slots=True)
class Player:
    """One script, one client, one server."""

    case: str
    script: Script
    subject: Subject
    patience: float = PATIENCE
    probed: bool = False
    """The script had something to ask a probe, and there was one."""
    unprobed: bool = False
    """…and there was none."""
    _server: Server = field(init=False)
    _place: Place = field(init=False)
    _watched: str = ""
    _gap: str = ""
    """What was seen where an endpoint had to be."""
    _done: bool = False

    async def play(self) -> None:
        """To its end.  Raises Fault, Inapplicable, and Unavailable if it cannot be played."""
        with tempfile.TemporaryDirectory(prefix="ax-conformance-") as directory:
            self._server = Server(self.script.mode, self.script.mesh)
            await self._server.start()
            self._place = Place(self.case, self.script.mode.value, self._server.port, Path(directory))
            try:
                played, _ = await asyncio.gather(self._steps(), self._watch(), return_exceptions=True)
            finally:
                await self.subject.stop()
                await self._server.stop()
            if isinstance(played, BaseException):
                raise played

    async def _steps(self) -> None:
        try:
            for step in self.script.steps:
                await self._step(step)
                if ended := self.subject.ended():
                    raise Fault(ended)
        finally:
            self._done = True

    async def _step(self, step: Step) -> None:
        server = self._server
        match step:
            case Start(hold, refuse, status, words, listening):
                server.hold, server.refuse, server.status, server.words = hold, refuse, status, words
                if not listening:
                    await server.stop()
                await self.subject.start(self._place)
            case Push():
                if not (step.unasked or step.later):
                    await self._until(f"asks for {short(step.url)}", _asked(step.url), None)
                await server.push(step)
            case Hold(urls):
                server.hold = urls
            case See(what, check, after, within):
                if after:
                    await asyncio.sleep(after)
                await self._until(what, check, within)
            case Probe():
                await self._ask(step)
            case Watch(target):
                self._watched = target
            case Unbroken():
                self._watched = ""
                if self._gap:
                    raise Fault(self._gap)
            case End(status, words, refuse):
                server.refuse, server.status, server.words = refuse, status, words
                server.end(status, words)
            case Outage(seconds):
                await server.stop()
                await asyncio.sleep(seconds)
            case Back():
                await server.start()
            case Logs(words):
                await self._until(
                    f"says {words!r}", lambda _: "" if words in self.subject.output() else f"{words!r}", None
                )

    async def _until(self, what: str, check: Check, within: float | None) -> None:
        """Look at the transcript after each of its entries, until all has been seen."""
        transcript = self._server.transcript
        deadline = self.patience if within is None else within
        missing = ""
        try:
            async with asyncio.timeout(deadline):
                while missing := check(transcript):
                    if ended := self.subject.ended():
                        raise Fault(ended)
                    self._server.moved.clear()
                    try:
                        await asyncio.wait_for(self._server.moved.wait(), GLANCE)
                    except TimeoutError:
                        pass
        except TimeoutError:
            if transcript.stream < 0 and self._server.other_mode:
                raise Inapplicable(f"the client does not speak {self.script.mode.value} xDS") from None
            raise Fault(f"not seen within {deadline:g} s: {missing} ({what})") from None

    async def _ask(self, step: Probe) -> None:
        if not self.subject.can_probe:
            self.unprobed = True
            return
        self.probed = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while (said := await self.subject.probe(step.target)) not in step.allowed:
            if step.keeps or loop.time() > deadline or self.subject.ended():
                wanted = " or ".join(_list(endpoints) for endpoints in step.allowed)
                raise Fault(f"{step.target} leads to {_list(said)}, not to {wanted}")
            await asyncio.sleep(PAUSE)
        if step.keeps:
            await asyncio.sleep(SETTLE)
            if (said := await self.subject.probe(step.target)) not in step.allowed:
                raise Fault(f"{step.target} leads to {_list(said)} after a while")

    async def _watch(self) -> None:
        while not self._done:
            if self._watched and not self._gap and self.subject.can_probe:
                try:
                    if not await self.subject.probe(self._watched):
                        self._gap = f"{self._watched} led to nobody for a while"
                except (Fault, Unavailable) as error:
                    self._gap = str(error)
            await asyncio.sleep(PAUSE)


def _list(endpoints: frozenset[str]) -> str:
    return ", ".join(sorted(endpoints)) or "nobody"


def _asked(url: str) -> Check:
    def check(transcript: Transcript) -> str:
        return "" if transcript.requests(url, transcript.stream) else f"a request for {short(url)}"

    return check
