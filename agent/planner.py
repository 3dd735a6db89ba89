"""From the registry's changes to commands for the kernel: what the daemon calls after each change.  Pure."""

from __future__ import annotations

from appswitch.agent.registry import Registry
from appswitch.errors import Exhausted
from appswitch.interceptor.commands import Command, Dump
from appswitch.interceptor.index import Key
from appswitch.interceptor.rows import Compiler, Row
from appswitch.interceptor.tables import SIZES, Sizes, Tables


class Planner:
    """Keeps the kernel's tables equal to the registry.

    After any change of the registry: `kernel.apply(planner.plan(now))`, in this order and without
    leaving anything out.  At `due()` likewise, though nothing changed: then old places are freed.
    """

    def __init__(self, registry: Registry, sizes: Sizes = SIZES) -> None:
        self._registry = registry
        self._compiler = Compiler(registry.index)
        self._tables = Tables(sizes)
        self._waiting: set[Key] = set()
        self._owed: list[Command] = []

    def restore(self, dump: Dump, now: float) -> None:
        """Start from what a former daemon left in the kernel; before the first `plan`.

        The registry should have the apps (with their class indexes), services and vservices of
        before: what it lacks at the first `plan` is removed from the tables.
        """
        self._tables.restore(dump, now)
        self._waiting |= set(self._tables.keys())

    def plan(self, now: float) -> list[Command]:
        """Commands that bring the tables to the registry's state.  `now`: monotonic seconds.

        Raises Exhausted if they do not fit: the tables stay as they are, all of it, and the next plan
        tries again.  Undo the change that was too much (or, after a large replacement, wait a second
        until the old places are free), then plan again.
        """
        self._owed += self._tables.sweep(now)
        index = self._registry.index
        touched, index.touched = index.touched | self._waiting, set()
        rows = self._compiler.refresh(touched, self._registry.classes, self._registry.peers)
        try:
            commands = self._tables.update(rows, now)
        except Exhausted:
            self._waiting = set(rows)
            raise
        self._waiting = set()
        commands, self._owed = self._owed + commands, []  # a key may be deleted and come again
        return commands

    def due(self) -> float | None:
        """When to plan next even if nothing changes; None: no need."""
        return self._tables.due()

    def rows(self) -> dict[Key, Row | None]:
        """What stands in the tables."""
        return self._tables.rows()

    def usage(self) -> dict[str, tuple[int, int]]:
        """Entries in use and capacity, by map."""
        return self._tables.usage()
