"""Both ends of the socket between the daemon and the Istio agent's process, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from fakes import FakeLog
from unit.agent.test_istio_wire import vservice

from appswitch.agent import istio_line, istio_link
from appswitch.agent import istio_wire as wire
from appswitch.agent.istio import IstioTable
from appswitch.agent.istio_line import Line
from appswitch.agent.istio_link import IstioLink
from appswitch.agent.istio_options import IstioOptions
from appswitch.agent.logs import Event
from appswitch.agent.resource_unsupported import Changed
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import InvalidInput, Unavailable
from appswitch.model import Mesh, VService
from appswitch.xds.resources import Unsupported


@dataclass
class Daemon:
    """What the link hands over; `free` lets a table go in force."""

    tables: list[tuple[VService, ...]] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)
    log: FakeLog = field(default_factory=FakeLog)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def apply(self, mesh: Mesh) -> None:
        self.begun.set()
        await self.free.wait()
        if self.fails:
            raise InvalidInput("no such table")
        self.tables.append(mesh.vservices)


@contextlib.asynccontextmanager
async def connected(
    answer: Callable[[wire.Wanted], wire.Answer],
) -> AsyncIterator[tuple[Daemon, IstioLink, Line, asyncio.Task[None]]]:
    """The daemon's side served, the agent's side listening."""
    daemon = Daemon()
    link = IstioLink(IstioOptions("istiod:15010"), daemon.apply, daemon.changes.append, daemon.log)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    line = Line(reader, writer)
    serving = spawn("daemon", link.serve(ours), failed=lambda *_: None)
    listening = spawn("agent", line.listen(answer))
    try:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            yield daemon, link, line, serving
    finally:
        writer.close()
        await stop([serving, listening])


def pages(wanted: wire.Wanted) -> wire.Answer:
    """Three pages of clusters; of anything else there is nothing."""
    if wanted.kind != "clusters":
        raise InvalidInput(f"no {wanted.kind}")
    return wire.Answer(data=f'"{wanted.after}"'.encode(), next={"": "a", "a": "b", "b": ""}[wanted.after])


async def collected(link: IstioLink, kind: str) -> list[bytes]:
    return [page async for page in link.pages(kind)]


async def until_connected(link: IstioLink) -> wire.Answer:
    """Ask; the agent has said its first word a few rounds of the loop later."""
    while True:
        try:
            return await link.ask(wire.PageWanted("clusters"))
        except Unavailable as error:
            if "away" not in str(error):
                raise
            await asyncio.sleep(0)


def run(scenario: Callable[[], object]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_questions_are_answered_while_a_table_is_put_in_force() -> None:
    async def scenario() -> None:
        async with connected(pages) as (daemon, link, line, _):
            applying = spawn("apply", line.apply(IstioTable((vservice("a"),))))
            await daemon.begun.wait()
            assert await collected(link, "clusters") == [b'""', b'"a"', b'"b"']
            assert not applying.done()
            daemon.free.set()
            await applying
            await line.apply(IstioTable((vservice("a"), vservice("b"))))
            assert [len(table) for table in daemon.tables] == [1, 2]

    run(scenario)


def test_why_there_is_no_answer_is_said() -> None:
    async def scenario() -> None:
        async with connected(pages) as (_, link, _, _):
            await until_connected(link)
            with pytest.raises(InvalidInput, match="no routes"):
                await collected(link, "routes")

    run(scenario)


def test_events_and_what_is_not_done_come_through() -> None:
    async def scenario() -> None:
        async with connected(pages) as (daemon, link, line, _):
            line(Event.ISTIO_CONNECTED, target="istiod")
            line.unsupported((Unsupported("cluster.lb_policy", "web"),))
            line.unsupported(())
            await until_connected(link)  # the answer comes after them
            row = ("cluster.lb_policy", "web", "", "")
            assert daemon.changes == [Changed(True, (row,)), Changed(False, gone=(row,))]
            assert daemon.log.events == [(Event.ISTIO_CONNECTED, {"target": "istiod"})]

    run(scenario)


def test_an_agent_that_is_away_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio_link, "ANSWER", 0.05)

    async def scenario() -> None:
        daemon = Daemon()
        link = IstioLink(IstioOptions("istiod:15010"), daemon.apply, daemon.changes.append, daemon.log)
        with pytest.raises(Unavailable, match="the Istio agent's process is away"):
            await link.ask(wire.PageWanted("clusters"))
        ours, theirs = socket.socketpair()
        serving = spawn("daemon", link.serve(ours))
        theirs.sendall(wire.frame(wire.Report(wire.VERSION)))
        with pytest.raises(Unavailable, match=r"has not answered within 0.05 s"):
            await until_connected(link)
        monkeypatch.setattr(istio_link, "ANSWER", 5.0)
        asking = spawn("ask", link.ask(wire.PageWanted("clusters")), failed=lambda *_: None)
        await asyncio.to_thread(theirs.recv, wire.HEADER)
        theirs.close()  # it dies with the question
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable, match="is away"):
                await asking
            await serving

    run(scenario)


def test_a_table_that_fails_ends_the_link() -> None:
    async def scenario() -> None:
        async with connected(pages) as (daemon, _, line, serving):
            daemon.fails = True
            daemon.free.set()
            applying = spawn("apply", line.apply(IstioTable()), failed=lambda *_: None)
            with pytest.raises(InvalidInput, match="no such table"):
                await serving
            await stop([applying])

    run(scenario)


def test_a_daemon_that_takes_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio_line, "DEADLINE", 0.05)

    async def scenario() -> None:
        async with connected(pages) as (daemon, _, line, _):
            with pytest.raises(Unavailable, match=r"has not taken a table within 0.05 s"):
                await line.apply(IstioTable((vservice("a"),)))
            daemon.free.set()
            await line.apply(IstioTable((vservice("b"),)))  # the late word is not taken for this one's
            assert [table[0].name for table in daemon.tables] == ["a", "b"]

    run(scenario)
