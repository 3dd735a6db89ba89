"""From the decision to rows: for each key, which group of backends each class gets.  Pure.

`compile_rows` is the plain way and the reference.  `Compiler` does the same for keys that changed
only: eligibility depends on nothing but what the apps behind a key ask of their clients (labels, policies).
It is worked out once for each such set, and a class that comes or goes costs nothing where it makes no
difference.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appswitch.interceptor import abi
from appswitch.interceptor.alias import KEEP, alias_table, spread
from appswitch.interceptor.decision import Kind, Verdict, route
from appswitch.interceptor.index import Access, Index, Key, Member, Target, effective_weights
from appswitch.model import Class, Labels, LbPolicy, Snapshot

_HEAD: Final = struct.Struct("=IHBB")
_TAIL: Final = struct.Struct("=II")
_ALWAYS: Final = _TAIL.pack(0, KEEP)
_POLICIES: Final = {LbPolicy.RANDOM: abi.POLICY_RANDOM, LbPolicy.ROUND_ROBIN: abi.POLICY_ROUND_ROBIN}

Classes = Sequence[Class | None]
"""By class index; None: nobody has this index now."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the tables, without its place."""

    kind: int
    policy: int = 0
    error: int = 0
    source_ip: bytes = bytes(4)
    backends: bytes = b""
    """Packed `struct backend`s."""

    @property
    def count(self) -> int:
        """Number of backends."""
        return len(self.backends) // abi.BACKEND.size


@dataclass(frozen=True, slots=True)
class Row:
    """What a key holds.  Equal rows are equal tables."""

    groups: tuple[Group, ...]
    """In the order in which `by_class` first names them."""
    by_class: tuple[int, ...] | None = None
    """Index into `groups` by class index, -1 where nobody has it (none at the end).  None: one for all."""


def compile_rows(snapshot: Snapshot, classes: Classes) -> dict[Key, Row]:
    """All rows of a snapshot: each key asked for each class."""
    index = Index.of(snapshot)
    rows = {}
    for key in index.all_keys():
        verdicts = [None if c is None else _encoded(route(index, c, key)) for c in classes]
        if not any(verdicts):
            verdicts = [_encoded(route(index, _NOBODY, key))]
        rows[key] = _row(verdicts)
    return rows


class Compiler:
    """Keeps what is needed to recompile single keys of an index that changes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._classes: tuple[Class | None, ...] = ()
        self._patterns: dict[frozenset[Access], _Pattern] = {}
        self._keys: dict[frozenset[Access], set[Key]] = {}
        self._accesses: dict[Key, frozenset[Access]] = {}

    def refresh(self, keys: Iterable[Key], classes: Classes) -> dict[Key, Row | None]:
        """Rows of these keys, and of those that a change of classes touches; None: the key is no more."""
        wanted = set(keys)
        if (now := tuple(classes)) != self._classes:
            wanted |= self._reclassify(now)
        return {key: self._refresh(key) for key in wanted}

    def _refresh(self, key: Key) -> Row | None:
        target = self._index.target(key)
        access = frozenset() if target is None else frozenset(m.access for m in target.members if m.access)
        if (before := self._accesses.get(key)) is not None and before != access:
            self._forget(key, before)
        if target is None:
            return None
        if not access:
            return Row((_group(target, access),))
        if before != access:
            self._accesses[key] = access
            self._keys.setdefault(access, set()).add(key)
        pattern = self._patterns.get(access)
        if pattern is None:
            pattern = self._patterns[access] = _pattern(access, self._classes)
        if isinstance(pattern, frozenset):
            return Row((_group(target, pattern),))
        groups: dict[frozenset[Access], Group] = {}
        for subset in pattern:
            if subset is not None and subset not in groups:
                groups[subset] = _group(target, subset)
        return _row([None if subset is None else groups[subset] for subset in pattern])

    def _forget(self, key: Key, access: frozenset[Access]) -> None:
        del self._accesses[key]
        self._keys[access].discard(key)
        if not self._keys[access]:
            del self._keys[access], self._patterns[access]

    def _reclassify(self, classes: tuple[Class | None, ...]) -> set[Key]:
        """Take new classes; returns the keys for which they make a difference."""
        old, self._classes = self._classes, classes
        size = max(len(old), len(classes))
        before, after = _padded(old, size), _padded(classes, size)
        changed = [after[i] for i in range(size) if before[i] != after[i]]
        common = any(before) and any(after)
        touched: set[Key] = set()
        for access, pattern in self._patterns.items():
            same = isinstance(pattern, frozenset) and common
            if same and all(c is None or _subset(access, c) == pattern for c in changed):
                continue  # one for all, and the same for those that came
            fresh = _pattern(access, classes)
            if fresh != pattern:
                self._patterns[access] = fresh
                touched |= self._keys[access]
        return touched


_Pattern = frozenset[Access] | tuple[frozenset[Access] | None, ...]
"""What may be reached: by every class, or by each one."""
_NOBODY: Final = Class(Labels(frozenset()))


def _padded(classes: tuple[Class | None, ...], size: int) -> tuple[Class | None, ...]:
    return classes + (None,) * (size - len(classes))


def _subset(access: frozenset[Access], client: Class) -> frozenset[Access]:
    return frozenset(each for each in access if not each.refusal(client))


def _pattern(access: frozenset[Access], classes: Classes) -> _Pattern:
    known: dict[Class | tuple[Labels, bool], frozenset[Access]] = {}
    guarded = any(each.guard for each in access)
    pattern: list[frozenset[Access] | None] = []
    for client in classes:
        if client is None:
            pattern.append(None)
            continue
        kind = client if guarded else (client.labels, client.asks_nameservers)
        if (subset := known.get(kind)) is None:
            subset = known[kind] = _subset(access, client)
        pattern.append(subset)
    distinct = set(known.values())
    if len(distinct) <= 1:
        return distinct.pop() if distinct else frozenset()
    return tuple(pattern)


def _row(groups: Sequence[Group | None]) -> Row:
    """A row in its one form: equal groups once, one group for all where it is the same."""
    places: dict[Group, int] = {}
    by_class = [-1 if group is None else places.setdefault(group, len(places)) for group in groups]
    if len(places) == 1:
        return Row(tuple(places))
    while by_class and by_class[-1] < 0:
        by_class.pop()
    return Row(tuple(places), tuple(by_class))


def _group(target: Target, reachable: frozenset[Access]) -> Group:
    """What a class gets that may reach these."""
    members = [m for m in target.members if m.weight and (m.access is None or m.access in reachable)]
    if members:
        source = target.source_ip.to_bytes(4, "big")
        weights = effective_weights(members)
        return Group(
            abi.KIND_BALANCE,
            _POLICIES[target.policy],
            target.dead,
            source,
            _backends(target.policy, members, weights),
        )
    error = target.denied if any(m.weight for m in target.members) else target.dead
    return Group(abi.KIND_REFUSE, error=error) if error else Group(abi.KIND_DIRECT)


def _encoded(verdict: Verdict | None) -> Group | None:
    """The same from a verdict of `route`."""
    if verdict is None:
        return None
    if verdict.kind is Kind.REFUSE:
        return Group(abi.KIND_REFUSE, error=verdict.error)
    if verdict.kind is Kind.DIRECT:
        return Group(abi.KIND_DIRECT)
    chosen = [c for c in verdict.candidates if c.eligible and c.weight]
    members = [Member(c.app, int(c.address), c.port, c.weight, i, None) for i, c in enumerate(chosen)]
    source = verdict.source_ip.packed if verdict.source_ip else bytes(4)
    backends = _backends(verdict.policy, members, [m.weight for m in members])
    return Group(abi.KIND_BALANCE, _POLICIES[verdict.policy], verdict.error, source, backends)


def _backends(policy: LbPolicy, members: Sequence[Member], weights: Sequence[int]) -> bytes:
    heads = [_head(m.app, m.address, m.port) for m in members]
    if weights.count(weights[0]) == len(weights):
        return b"".join([part for head in heads for part in (head, _ALWAYS)])
    if policy is LbPolicy.ROUND_ROBIN:
        return b"".join([part for i in spread(tuple(weights)) for part in (heads[i], _ALWAYS)])
    tails = alias_table(tuple(weights))
    return b"".join(
        [part for head, tail in zip(heads, tails, strict=True) for part in (head, _TAIL.pack(*tail))]
    )


def _head(app: int, address: int, port: int) -> bytes:
    if app:
        return _HEAD.pack(app, port, abi.BACKEND_APP, 0)
    return address.to_bytes(4, "big") + _HEAD.pack(0, port, abi.BACKEND_ADDRESS, 0)[4:]
