"""`ax get bpf`: the kernel's statistics of our programs and maps, for an interval if one is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.seams import StatisticsLike
from appswitch.errors import Unsupported
from appswitch.interceptor.statistics import MapStatistics, ProgramStatistics


@dataclass(slots=True)
class Bpf:
    """The programs and maps of one daemon."""

    statistics: StatisticsLike
    usage: Callable[[], Mapping[str, tuple[int, int]]]
    """Entries in use and capacity of the tables that the daemon writes: arrays, which nobody counts."""
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def views(self, seconds: float) -> list[BpfView]:
        """Programs, then maps; runs and time of the next `seconds`, or with 0 since the programs were loaded.

        Raises Unsupported.
        """
        usage = self.usage()
        try:
            if seconds:
                async with self._one:
                    before = await self._during(seconds)
            else:
                before = {}
            programs = await asyncio.to_thread(self.statistics.programs)
            maps = await asyncio.to_thread(self.statistics.maps)
        except OSError as error:
            raise Unsupported(f"the kernel gives no statistics of BPF programs: {error}") from error
        return [_program(each, before.get(each.id)) for each in programs] + [
            _map(each, usage) for each in maps
        ]

    async def _during(self, seconds: float) -> dict[int, ProgramStatistics]:
        """Statistics are on for so long; what there was before, by program.  Raises OSError."""
        before = await asyncio.to_thread(self.statistics.programs)
        descriptor = self.statistics.enable()
        try:
            await asyncio.sleep(seconds)
        finally:
            os.close(descriptor)
        return {each.id: each for each in before}


def _program(now: ProgramStatistics, before: ProgramStatistics | None) -> BpfView:
    return BpfView(
        kind="program",
        name=now.name,
        id=now.id,
        memory=now.memory,
        attached=now.attached,
        runs=now.runs - (before.runs if before else 0),
        nanoseconds=now.nanoseconds - (before.nanoseconds if before else 0),
    )


def _map(each: MapStatistics, usage: Mapping[str, tuple[int, int]]) -> BpfView:
    entries = each.entries if each.entries is not None else usage.get(each.name, (None, 0))[0]
    return BpfView(
        kind="map", name=each.name, id=each.id, memory=each.memory, entries=entries, capacity=each.capacity
    )
