"""The Istio agent's end of the socket to the daemon: tables, events and answers out, orders in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from appswitch.agent import istio_wire as wire
from appswitch.agent.istio import IstioTable
from appswitch.agent.logs import Event, Log, plain
from appswitch.errors import AppSwitchError, Unavailable
from appswitch.xds.resources import Unsupported

DEADLINE: Final = 60.0
"""Seconds until the daemon has a table in force; a first one of 10,000 services takes it about two."""


class Line(Log):
    """Both directions; it is also where events go.  For the event loop's thread alone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(None)
        self._reader, self._writer = reader, writer
        self._differ = wire.Differ()
        self._untaken: dict[int, asyncio.Future[None]] = {}
        """By number of the change."""

    def __call__(self, event: Event, **fields: Any) -> None:
        self._send(event=event.label, fields={name: plain(value) for name, value in fields.items()})

    async def apply(self, table: IstioTable) -> None:
        """Hand a table over; returns when it is in force.  Raises Unavailable."""
        change = self._differ.change(table.mesh)
        taken = self._untaken[change.number] = asyncio.get_running_loop().create_future()
        self._send(change=change)
        try:
            async with asyncio.timeout(DEADLINE):
                await taken
        except TimeoutError as error:
            raise Unavailable(f"the daemon has not taken a table within {DEADLINE:g} s") from error
        finally:
            del self._untaken[change.number]

    def unsupported(self, items: tuple[Unsupported, ...]) -> None:
        """Hand over what is asked for and not done, as far as it changed."""
        self._send(unsupported=self._differ.unsupported(items))

    async def listen(self, answer: Callable[[wire.Wanted], wire.Answer]) -> None:
        """Obey orders until the daemon's end closes.  Raises InvalidInput for what is none.

        `answer` makes the answer to a question, whose number is filled in here; may raise AppSwitchError.
        """
        self._send()  # from now on
        while (order := await self._order()) is not None:
            if (taken := self._untaken.get(order.taken)) is not None and not taken.done():
                taken.set_result(None)
            if order.question is not None:
                self._send(answer=_answered(order.question, answer))
                await self._writer.drain()

    async def _order(self) -> wire.Order | None:
        try:
            header = await self._reader.readexactly(wire.HEADER)
            return wire.decode_order(await self._reader.readexactly(wire.length(header, wire.MAX_ORDER)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def _send(self, **parts: Any) -> None:
        self._writer.write(wire.frame(wire.Report(wire.VERSION, **parts)))


def _answered(question: wire.Question, answer: Callable[[wire.Wanted], wire.Answer]) -> wire.Answer:
    try:
        return wire.numbered(question.number, answer(question.wanted))
    except AppSwitchError as error:
        return wire.Answer(question.number, error=str(error))
