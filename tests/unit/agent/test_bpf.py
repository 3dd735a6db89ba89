"""`ax get bpf`: what the kernel counted, since the start or for so long."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeStatistics

from appswitch.agent.bpf import Bpf
from appswitch.errors import Unsupported

USAGE = {"groups": (5, 131072), "keys": (9, 131072)}


def test_since_the_start_and_for_an_interval() -> None:
    async def main() -> None:
        statistics = FakeStatistics()
        statistics.runs = 1000
        bpf = Bpf(statistics, lambda: USAGE)
        program, ports, groups = await bpf.views(0)
        assert (program.kind, program.name, program.id, program.attached) == ("program", "ax_connect4", 7, 2)
        assert (program.runs, program.nanoseconds, program.memory) == (1000, 100_000, 8192)
        assert (ports.kind, ports.entries, ports.capacity, ports.runs) == ("map", 3, 65536, None)
        assert (groups.entries, groups.capacity) == (5, 131072)  # what the daemon knows of an array
        [program, *_] = await bpf.views(0.01)
        assert (program.runs, program.nanoseconds) == (10, 1000)

    asyncio.run(main())


def test_a_kernel_that_refuses() -> None:
    statistics = FakeStatistics()
    statistics.denied = True
    with pytest.raises(Unsupported, match="the kernel gives no statistics"):
        asyncio.run(Bpf(statistics, lambda: USAGE).views(0.01))
