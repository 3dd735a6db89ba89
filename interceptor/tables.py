"""Rows to commands: where in the kernel's maps each row stands, and what has to change.  Pure.

A service is published by one 8-byte store of its word; what a program may still be reading (the old
groups, backends, verdicts, a deleted key's index) rests for GRACE before its place is used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appswitch.errors import Exhausted
from appswitch.interceptor import abi
from appswitch.interceptor.blocks import Blocks
from appswitch.interceptor.commands import (
    Command,
    DeleteKey,
    Dump,
    InsertKey,
    SetService,
    WriteBackends,
    WriteGroup,
    WriteVerdicts,
)
from appswitch.interceptor.index import Key
from appswitch.interceptor.packing import (
    key_tag,
    pack_group,
    pack_key,
    pack_words,
    read_row,
    read_service,
    runs,
    unpack_key,
)
from appswitch.interceptor.rows import Group, Row

__all__ = [
    "SIZES",
    "Command",
    "DeleteKey",
    "Dump",
    "InsertKey",
    "SetService",
    "Sizes",
    "Tables",
    "WriteBackends",
    "WriteGroup",
    "WriteVerdicts",
]

GRACE: Final = 1.0
"""Seconds.  A program runs for microseconds; a stolen virtual CPU may stop it for much longer."""
SLICE: Final = 16
"""Fewest classes or peers that a per-class service has room for."""


@dataclass(slots=True)
class Placed:
    """Where a row stands."""

    row: Row | None
    """None: found in the kernel, and not understood."""
    service: int
    groups: tuple[int, ...] = ()
    backends: tuple[int, ...] = ()
    """First entry of each group's; 0 where it has none."""
    verdicts: int = 0
    capacity: int = 0
    """Classes (or peers) that the slice at `verdicts` has room for."""

    @property
    def word(self) -> int:
        """The service's word."""
        if self.capacity:
            return (
                self.verdicts
                | abi.SERVICE_LIVE
                | abi.SERVICE_PER_CLASS
                | (abi.SERVICE_PER_PEER if self.row is not None and self.row.per_peer else 0)
                | self.capacity << abi.SERVICE_CAPACITY_SHIFT
            )
        return abi.SERVICE_LIVE | self.groups[0]

    def words(self) -> list[int]:
        """The slice's words."""
        by_class = self.row.by_class if self.row and self.row.by_class else ()
        words = [self.groups[i] if i >= 0 else 0 for i in by_class]
        return words + [0] * (self.capacity - len(words))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Entries of each map; all but `keys` are powers of two."""

    keys: int = abi.KEYS
    services: int = abi.SERVICES
    verdicts: int = abi.VERDICTS
    groups: int = abi.GROUPS
    backends: int = abi.BACKENDS


SIZES: Final = Sizes()
"""What the driver makes."""

Freed = tuple[Blocks, int, int]
"""(map, first, count)"""


@dataclass(slots=True)
class _Change:
    """One update under way: nothing of it is kept if it does not fit."""

    commands: list[Command] = field(default_factory=list)
    placed: dict[Key, Placed] = field(default_factory=dict)
    removed: list[Key] = field(default_factory=list)
    revived: list[Key] = field(default_factory=list)
    retired: list[Freed] = field(default_factory=list)
    taken: list[Freed] = field(default_factory=list)

    def take(self, blocks: Blocks, count: int = 1) -> int:
        first = blocks.take(count)
        self.taken.append((blocks, first, count))
        return first


class Tables:
    """The contents of the maps `keys`, `services`, `verdicts`, `groups` and `backends`."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        self._most_keys = sizes.keys
        self._services = Blocks("services", sizes.services)
        self._verdicts = Blocks("verdicts", sizes.verdicts)
        self._groups = Blocks("groups", sizes.groups)
        self._backends = Blocks("backends", sizes.backends)
        self._placed: dict[Key, Placed] = {}
        self._dying: dict[Key, tuple[int, float]] = {}
        """Keys still in the kernel whose service word is 0: (service index, since when)."""
        self._resting: deque[tuple[float, Freed]] = deque()
        self._ending: deque[tuple[float, Key]] = deque()
        self._owed: list[Command] = []

    def update(self, rows: Mapping[Key, Row | None], now: float) -> list[Command]:
        """Commands that make these rows be there (None: not be there); other keys stay as they are.

        Raises Exhausted, with nothing changed, if there is no room.  `now`: monotonic seconds.
        """
        change = _Change()
        try:
            for key, row in rows.items():
                if row is not None:
                    self._put(key, row, change)
                elif key in self._placed:
                    change.removed.append(key)
            if len(self._placed) + len(self._dying) + len(change.placed) > self._most_keys:
                self._check_keys(change)
        except Exhausted:
            for blocks, first, count in change.taken:
                blocks.give(first, count)
            raise
        for key in change.revived:
            del self._dying[key]
        self._placed.update(change.placed)
        for key in change.removed:
            placed = self._placed.pop(key)
            change.commands.append(SetService(placed.service, 0))
            self._dying[key] = (placed.service, now)
            self._ending.append((now + GRACE, key))
            change.retired.extend(self._parts(placed))
        self._resting.extend((now + GRACE, freed) for freed in change.retired)
        commands, self._owed = self._owed + change.commands, []
        return commands

    def sweep(self, now: float) -> list[Command]:
        """Free what has rested long enough, and delete keys that were absent for as long."""
        commands: list[Command] = []
        while self._resting and self._resting[0][0] <= now:
            blocks, first, count = self._resting.popleft()[1]
            blocks.give(first, count)
        while self._ending and self._ending[0][0] <= now:
            due, key = self._ending.popleft()
            service, since = self._dying.get(key, (0, 0.0))
            if service and since + GRACE <= due:
                del self._dying[key]
                commands.append(DeleteKey(pack_key(key)))
                self._resting.append((now + GRACE, (self._services, service, 1)))
        return commands

    def due(self) -> float | None:
        """When `sweep` will next have something to do; None: never."""
        times = [queue[0][0] for queue in (self._resting, self._ending) if queue]
        return min(times, default=None)

    def keys(self) -> Iterable[Key]:
        """Keys that are there."""
        return self._placed.keys()

    def rows(self) -> dict[Key, Row | None]:
        """The rows that are there; None: found in the kernel and not understood."""
        return {key: placed.row for key, placed in self._placed.items()}

    def usage(self) -> dict[str, tuple[int, int]]:
        """Entries in use (resting ones included) and capacity, by map."""
        maps = (self._services, self._verdicts, self._groups, self._backends)
        found = {blocks.name: (blocks.used, blocks.capacity) for blocks in maps}
        return {"keys": (len(self._placed) + len(self._dying), self._most_keys)} | found

    def restore(self, dump: Dump, now: float) -> None:
        """Take the kernel's tables for this object's own, which must be fresh.

        Keys whose rows make no sense stay as they are until `update` writes or removes them.  What the
        former daemon had resting is taken to have rested: a new one does not start within GRACE.
        """
        for data, service in dump.keys.items():
            key = unpack_key(data)
            if not self._services.claim(service):
                self._owed.append(DeleteKey(data))  # two keys of one service: neither can be told apart
                continue
            word = read_service(dump, service)
            if not word:
                self._dying[key] = (service, now)
                self._ending.append((now + GRACE, key))
                continue
            found = read_row(dump, service, word, key_tag(key))
            placed = Placed(None, service)
            if found is not None:
                placed = Placed(
                    found.row, service, found.groups, found.backends, found.verdicts, found.capacity
                )
            self._placed[key] = placed if self._claim(placed) else Placed(None, service)

    # --- inside

    def _claim(self, placed: Placed) -> bool:
        claimed: list[Freed] = []
        for blocks, first, count in self._parts(placed):
            if not blocks.claim(first, count):
                for part in claimed:
                    part[0].give(part[1], part[2])
                return False
            claimed.append((blocks, first, count))
        return True

    def _check_keys(self, change: _Change) -> None:
        count = len(self._placed.keys() | self._dying.keys() | change.placed.keys())
        if count > self._most_keys:
            raise Exhausted(
                f"the kernel's table 'keys' is full: {count} of {self._most_keys} keys; delete vservices"
            )

    def _put(self, key: Key, row: Row, change: _Change) -> None:
        old = self._placed.get(key)
        if old is not None and old.row == row:
            return
        if old is not None:
            service = old.service
        elif key in self._dying:
            service = self._dying[key][0]
            change.revived.append(key)
        else:
            service = change.take(self._services)
        new = Placed(row, service)
        self._put_groups(key, new, old, change)
        word = old.word if old is not None and old.row is not None else 0
        if row.by_class is not None:
            self._put_verdicts(new, old, change)
        if old is not None:
            kept = set(self._parts(new))
            change.retired.extend(part for part in self._parts(old) if part not in kept)
        if new.word != word:
            change.commands.append(SetService(service, new.word))
        if old is None and key not in self._dying:
            change.commands.append(InsertKey(pack_key(key), service))
        change.placed[key] = new

    def _put_groups(self, key: Key, new: Placed, old: Placed | None, change: _Change) -> None:
        assert new.row is not None
        before: dict[Group, int] = {}
        if old is not None and old.row is not None:
            before = {group: i for i, group in enumerate(old.row.groups)}
        groups: list[int] = []
        backends: list[int] = []
        for place, group in enumerate(new.row.groups):
            if old is not None and (same := before.get(group)) is not None:
                groups.append(old.groups[same])
                backends.append(old.backends[same])
                continue
            first = change.take(self._backends, group.count) if group.count else 0
            index = change.take(self._groups)
            inherit = old.groups[min(place, len(old.groups) - 1)] if old is not None and old.groups else 0
            if group.backends:
                change.commands.append(WriteBackends(first, group.backends))
            else:
                inherit = 0
            change.commands.append(
                WriteGroup(index, pack_group(group, first, new.service, key_tag(key)), inherit)
            )
            groups.append(index)
            backends.append(first)
        new.groups, new.backends = tuple(groups), tuple(backends)

    def _put_verdicts(self, new: Placed, old: Placed | None, change: _Change) -> None:
        """The slice: the old one, word by word, where there is room; each word is its class's alone.

        One by peers is never rewritten into one by classes: a program reads by the service's word.
        """
        assert new.row is not None and new.row.by_class is not None
        size = len(new.row.by_class)
        same = old is not None and old.row is not None and old.row.per_peer == new.row.per_peer
        if old is None or not same or old.capacity < size:
            new.capacity = max(SLICE, 1 << (size - 1).bit_length())
            if new.capacity > 0xFFFF:
                what = "classes and addresses" if new.row.per_peer else "classes"
                raise Exhausted(
                    f"{size} {what} of apps are more than a service of the kernel's tables can tell apart"
                )
            new.verdicts = change.take(self._verdicts, new.capacity)
            change.commands.append(WriteVerdicts(new.verdicts, pack_words(new.words())))
            return
        new.verdicts, new.capacity = old.verdicts, old.capacity
        before, after = old.words(), new.words()
        differing = [i for i in range(new.capacity) if before[i] != after[i]]
        for first, last in runs(differing):
            change.commands.append(WriteVerdicts(new.verdicts + first, pack_words(after[first:last])))

    def _parts(self, placed: Placed) -> list[Freed]:
        """What a row holds besides its service index."""
        if placed.row is None:
            return []
        parts: list[Freed] = [(self._groups, index, 1) for index in placed.groups]
        for group, first in zip(placed.row.groups, placed.backends, strict=True):
            if group.count:
                parts.append((self._backends, first, group.count))
        if placed.capacity:
            parts.append((self._verdicts, placed.verdicts, placed.capacity))
        return parts
