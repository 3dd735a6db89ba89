"""From the decision to rows: for each key, which group of backends each class (or peer) gets.  Pure.

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
"""By number; None: nobody has this number now.

Classes are without address.  Peers are classes with it: what guarded keys ask for.  Number 0 of those has no
class: apps whose address is not known.
"""


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
    """Index into `groups` by number, -1 where nobody has it (none at the end).  None: one for all."""
    per_peer: bool = False
    """The numbers are those of peers, not of classes."""


def compile_rows(snapshot: Snapshot, classes: Classes, peers: Classes) -> dict[Key, Row]:
    """All rows of a snapshot: each key asked for each class or peer."""
    index = Index.of(snapshot)
    rows = {}
    for key in index.all_keys():
        target = index.target(key)
        per_peer = target is not None and target.guarded
        clients = _with_nobody(peers) if per_peer else classes
        verdicts = [None if c is None else _encoded(route(index, c, key)) for c in clients]
        if not any(verdicts):
            verdicts = [_encoded(route(index, _NOBODY, key))]
        rows[key] = _row(verdicts, per_peer)
    return rows


class Compiler:
    """Keeps what is needed to recompile single keys of an index that changes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._by_class = _Patterns()
        self._by_peer = _Patterns()
        self._keys: dict[frozenset[Access], set[Key]] = {}
        self._accesses: dict[Key, frozenset[Access]] = {}

    def refresh(self, keys: Iterable[Key], classes: Classes, peers: Classes) -> dict[Key, Row | None]:
        """Rows of these keys, and of those that a change of classes touches; None: the key is no more."""
        wanted = set(keys)
        differing = self._by_class.follow(tuple(classes)) + self._by_peer.follow(_with_nobody(peers))
        wanted.update(*[self._keys[access] for access in differing])
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
        pattern = self._patterns(access).of(access)
        if isinstance(pattern, frozenset):
            return Row((_group(target, pattern),))
        groups: dict[frozenset[Access], Group] = {}
        for subset in pattern:
            if subset is not None and subset not in groups:
                groups[subset] = _group(target, subset)
        return _row([None if subset is None else groups[subset] for subset in pattern], target.guarded)

    def _forget(self, key: Key, access: frozenset[Access]) -> None:
        del self._accesses[key]
        self._keys[access].discard(key)
        if not self._keys[access]:
            del self._keys[access]
            self._patterns(access).forget(access)

    def _patterns(self, access: frozenset[Access]) -> _Patterns:
        return self._by_peer if any(each.guard is not None for each in access) else self._by_class


_Pattern = frozenset[Access] | tuple[frozenset[Access] | None, ...]
"""What may be reached: by every class, or by each one."""
_NOBODY: Final = Class(Labels(frozenset()))


class _Patterns:
    """What each of a sequence of clients may reach, by what is asked of them."""

    def __init__(self) -> None:
        self.clients: tuple[Class | None, ...] = ()
        self.known: dict[frozenset[Access], _Pattern] = {}

    def of(self, access: frozenset[Access]) -> _Pattern:
        """Kept until it is forgotten."""
        if (pattern := self.known.get(access)) is None:
            pattern = self.known[access] = _pattern(_subsets(access, self.clients))
        return pattern

    def forget(self, access: frozenset[Access]) -> None:
        """No key asks for this any more."""
        del self.known[access]

    def follow(self, clients: tuple[Class | None, ...]) -> list[frozenset[Access]]:
        """Take new clients; returns for what they make a difference."""
        old, self.clients = self.clients, clients
        shared = min(len(old), len(clients))
        changed = [i for i in range(shared) if old[i] is not clients[i] and old[i] != clients[i]]
        changed += range(shared, len(clients))
        if not changed and len(old) == len(clients):
            return []
        common = any(old) and any(clients)
        came = [clients[i] for i in changed]
        differing = []
        for access, pattern in self.known.items():
            fresh = _subsets(access, came)
            if isinstance(pattern, frozenset):
                if common and all(subset is None or subset == pattern for subset in fresh):
                    continue  # one for all, and the same for those that came
                subsets = [None if client is None else pattern for client in old[:shared]]
            else:
                subsets = list(pattern[:shared])
            subsets += [None] * (len(clients) - shared)
            for i, subset in zip(changed, fresh, strict=True):
                subsets[i] = subset
            if (now := _pattern(subsets)) != pattern:
                self.known[access] = now
                differing.append(access)
        return differing


def _with_nobody(peers: Classes) -> tuple[Class | None, ...]:
    return (_NOBODY, *peers[1:])


def _subsets(access: frozenset[Access], clients: Classes) -> list[frozenset[Access] | None]:
    return [None if c is None else frozenset(a for a in access if not a.refusal(c)) for c in clients]


def _pattern(subsets: Sequence[frozenset[Access] | None]) -> _Pattern:
    """In its one form: one for all where it is the same."""
    distinct = {subset for subset in subsets if subset is not None}
    if len(distinct) <= 1:
        return distinct.pop() if distinct else frozenset()
    return tuple(subsets)


def _row(groups: Sequence[Group | None], per_peer: bool) -> Row:
    """A row in its one form: equal groups once, one group for all where it is the same."""
    places: dict[Group, int] = {}
    by_class = [-1 if group is None else places.setdefault(group, len(places)) for group in groups]
    if len(places) == 1:
        return Row(tuple(places))
    while by_class and by_class[-1] < 0:
        by_class.pop()
    return Row(tuple(places), tuple(by_class), per_peer)


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
