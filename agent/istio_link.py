"""The daemon's side of the Istio agent: starts its process, takes its tables and events, asks it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from appswitch.agent import istio_wire as wire
from appswitch.agent.istio_options import IstioOptions, encode
from appswitch.agent.logs import Log
from appswitch.agent.resource_unsupported import Changed
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import InvalidInput, Unavailable
from appswitch.model import Mesh

ANSWER: Final = 5.0
"""Seconds for an answer of the agent's process: half of what `ax` waits for the daemon's."""
AWAY: Final = (
    "the Istio agent's process is away or only starting (that takes seconds; see istio.* in the log)"
)


@dataclass(slots=True)
class IstioLink:
    """One Istio agent."""

    options: IstioOptions
    apply: Callable[[Mesh], Awaitable[None]]
    """Puts a table in force; the push is acknowledged when it returns."""
    report: Callable[[Changed], None]
    """Hears what Istiod asks for and is not done, as far as it changed."""
    log: Log
    profiles: tuple[Path | None, Path | None] = (None, None)
    """Files of the agent's own CPU and memory profile."""
    _writer: asyncio.StreamWriter | None = None
    """To the process; None: there is none, or it has said nothing yet."""
    _asked: dict[int, asyncio.Future[wire.Answer]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))

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
        try:
            await self.serve(ours)
        finally:
            process.terminate()
            await _ended(process)
        raise Unavailable(f"the Istio agent ended with status {process.returncode}")

    async def serve(self, sock: socket.socket) -> None:
        """Talk with an agent until its end of the socket closes.  Raises InvalidInput for what it says."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=1 << 20)
        changes: asyncio.Queue[wire.Change | None] = asyncio.Queue()
        # Beside the reading, so that answers come through while a table is put in force.
        putting = spawn("istio-apply", self._put(changes, writer), failed=lambda *_: writer.close())
        try:
            await self._take(reader, writer, changes)
            changes.put_nowait(None)
            await putting
        finally:
            self._writer = None
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(Unavailable(AWAY))
            writer.close()
            await stop([putting])

    async def pages(self, kind: str) -> AsyncIterator[bytes]:
        """Rows of `ax get KIND` as JSON without the outermost brackets, as many at once as the agent likes.

        Raises Unavailable, InvalidInput.
        """
        after, more = "", True
        while more:
            answer = await self.ask(wire.PageWanted(kind, after))
            yield answer.data
            after, more = answer.next, answer.next > after

    async def ask(self, wanted: wire.Wanted) -> wire.Answer:
        """The agent's answer.  Raises Unavailable, InvalidInput where it cannot tell."""
        if self._writer is None:
            raise Unavailable(AWAY)
        number = next(self._numbers)
        future: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._order(self._writer, question=wire.Question(number, wanted))
            async with asyncio.timeout(ANSWER):
                answer = await future
        except TimeoutError as error:
            raise Unavailable(f"the Istio agent's process has not answered within {ANSWER:g} s") from error
        finally:
            del self._asked[number]
        if answer.error:
            raise InvalidInput(answer.error)
        return answer

    async def _take(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        changes: asyncio.Queue[wire.Change | None],
    ) -> None:
        """Reports until the other side closes; after the first one it can be asked."""
        while True:
            try:
                header = await reader.readexactly(wire.HEADER)
                report = wire.decode(await reader.readexactly(wire.length(header)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self._writer = writer
            if report.event:
                self.log.note(report.event, **report.fields)
            if report.unsupported is not None:
                self.report(report.unsupported)
            if report.change is not None:
                changes.put_nowait(report.change)
            if report.answer is not None:
                future = self._asked.get(report.answer.number)  # None: it was waited for long enough
                if future is not None and not future.done():
                    future.set_result(report.answer)

    async def _put(self, changes: asyncio.Queue[wire.Change | None], writer: asyncio.StreamWriter) -> None:
        """Put one change after the other in force, until None."""
        merger = wire.Merger()
        while (change := await changes.get()) is not None:
            await self.apply(merger.merge(change))
            self._order(writer, taken=change.number)

    @staticmethod
    def _order(
        writer: asyncio.StreamWriter, *, taken: int = 0, question: wire.Question | None = None
    ) -> None:
        writer.write(wire.frame(wire.Order(wire.VERSION, taken, question)))


async def _ended(process: subprocess.Popen[bytes], within: float = 3.0) -> None:
    """Wait for the process's end; make it end if it does not."""
    for _ in range(round(within / 0.02)):
        if process.poll() is not None:
            return
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
