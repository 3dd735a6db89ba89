"""Brings the kernel's tables to the registry's state: at once for a launch, debounced for all else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from appswitch.agent.logs import Event, Log
from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.agent.seams import KernelDriver
from appswitch.errors import Exhausted
from appswitch.interceptor.commands import Command

DEBOUNCE: Final = 0.003
"""Seconds: changes that come together are compiled together."""


class Writer:
    """Registry → planner → kernel.  `published()` hears of each time the registry may have changed."""

    def __init__(
        self, registry: Registry, kernel: KernelDriver, log: Log, published: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._kernel = kernel
        self._log = log
        self._published = published
        self._planner = Planner(registry)
        self._timer: asyncio.TimerHandle | None = None
        self.full = ""
        """Why the tables do not hold what the registry does; empty: they do."""

    def restore(self) -> None:
        """Take over the tables that an earlier daemon left; the registry has what it had."""
        self._planner.restore(self._kernel.dump(), time.monotonic())

    def write(self) -> None:
        """Write now.  Raises Exhausted: the tables are as before, and the change is to be undone."""
        begin = time.monotonic()
        try:
            commands = self._planner.plan(begin)
            self._apply(commands)
        except Exhausted as error:
            if not self.full:
                self._log(Event.TABLE_FULL, error=error)
            self.full = str(error)
            raise
        self.full = ""
        if commands:
            spent = round((time.monotonic() - begin) * 1000, 2)
            self._log(Event.TABLES_WRITTEN, commands=len(commands), ms=spent)
        self._published()

    def _apply(self, commands: Sequence[Command]) -> None:
        """Into the kernel.  Raises Exhausted: then what the kernel took is taken stock of anew."""
        try:
            self._kernel.apply(commands)
        except Exhausted:
            index = self._registry.index
            index.touched |= set(index.all_keys())
            self._planner = Planner(self._registry)
            self.restore()
            raise

    def soon(self) -> None:
        """Write within a few milliseconds."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEBOUNCE, self._now)

    def sweep(self, now: float) -> None:
        """Free places that have rested, and try again what did not fit."""
        due = self._planner.due()
        if self.full or (due is not None and due <= now):
            self._now()

    def usage(self) -> dict[str, tuple[int, int]]:
        """Entries in use and capacity, by map."""
        return self._planner.usage()

    def close(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> None:
        self._timer = None
        try:
            self.write()
        except Exhausted:
            pass  # logged; the sweep tries again
