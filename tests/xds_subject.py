"""Our own client, or one with a fault, as a subject of the conformance suite in the test's own process."""

from __future__ import annotations

import asyncio

from appswitch.agent.tasks import spawn, stop
from appswitch.xds.conformance.own import Applied, Parts
from appswitch.xds.conformance.place import Place
from appswitch.xds.conformance.transcript import Mode


class Inside:
    """A client of these parts: no process to start, nothing to import, so that a case takes little time."""

    can_probe = True

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._task: asyncio.Task[None] | None = None
        self._now: Applied = {}
        self._said: list[str] = []

    async def start(self, place: Place) -> None:
        values = place.values()
        client = self._parts.build(
            values["address"], Mode(values["mode"]), values["node"], self._put, self._said.append
        )
        self._task = spawn("subject", client.run(), lambda _, error: self._said.append(repr(error)))

    def _put(self, now: Applied) -> None:
        self._now = now

    async def stop(self) -> None:
        if self._task is not None:
            await stop([self._task])

    def ended(self) -> str:
        return f"the client ended: {self.output()}" if self._task is not None and self._task.done() else ""

    def output(self) -> str:
        return "\n".join(self._said)

    async def probe(self, target: str) -> frozenset[str]:
        return self._now.get(target, frozenset())
