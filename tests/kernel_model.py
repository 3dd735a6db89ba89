"""The kernel's side of the tables in Python: applies commands, looks up as `bpf/decide.h` does.

It also holds `tables.py` to its word: make before break, one owner for each entry, and nothing that
a program may still be reading is written within a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from errno import EACCES, ECONNREFUSED
from fractions import Fraction
from ipaddress import IPv4Address

from appswitch.interceptor import abi
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
from appswitch.interceptor.index import LOOPBACK_IP
from appswitch.interceptor.packing import key_tag, unpack_key
from appswitch.model import App, BindScope, Destination, Service

GRACE = 1.0
Entry = tuple[str, int]
Target = tuple[str, int, int]
"""("app", AppId, port of the app) or ("address", IPv4, port)"""
Outcome = tuple[str, object]
"""("direct", None), ("refused", errno) or ("chosen", {Target: probability})"""


class KernelModel:
    """The maps that Python writes, and the service table that the programs keep."""

    def __init__(self, local: Iterable[IPv4Address] = ()) -> None:
        self.now = 0.0
        self.keys: dict[bytes, int] = {}
        self.local = set(local)
        self.services: dict[int, int] = {}
        self.verdicts: dict[int, int] = {}
        self.groups: dict[int, bytes] = {}
        self.backends: dict[int, bytes] = {}
        self.listening: dict[tuple[int, int, int], list[Service]] = {}
        self.real: dict[tuple[int, int], tuple[IPv4Address, int]] = {}
        self._live: dict[int, set[Entry]] = {}
        self._left: dict[Entry, float] = {}
        self._zeroed: dict[int, float] = {}
        self._freed: dict[int, float] = {}

    # --- commands

    def apply(self, commands: Iterable[Command], now: float) -> None:
        self.now = now
        for command in commands:
            match command:
                case WriteBackends(first, data):
                    assert data and len(data) % abi.BACKEND.size == 0
                    for i in range(len(data) // abi.BACKEND.size):
                        self._writable("b", first + i, abi.BACKENDS)
                        self.backends[first + i] = data[i * 16 : i * 16 + 16]
                case WriteGroup(index, data, inherit):
                    self._writable("g", index, abi.GROUPS)
                    assert not inherit or inherit in self.groups
                    assert len(data) == abi.GROUP.size
                    self.groups[index] = data
                case WriteVerdicts(first, data):
                    self._write_verdicts(first, data)
                case SetService(index, word):
                    self._set_service(index, word)
                case InsertKey(key, index):
                    assert key not in self.keys and len(self.keys) < abi.KEYS
                    assert index not in self.keys.values(), "one key for each service"
                    assert self._freed.get(index, -GRACE) + GRACE <= self.now, "index reused too soon"
                    assert self.services.get(index), "published before it is complete"
                    self.keys[key] = index
                    self._check(index)
                case DeleteKey(key):
                    index = self.keys.pop(key)
                    assert not self.services[index]
                    assert self._zeroed[index] + GRACE <= self.now, "key deleted too soon"
                    self._freed[index] = self.now

    def _writable(self, kind: str, entry: int, capacity: int) -> None:
        assert 0 < entry < capacity
        assert not any((kind, entry) in live for live in self._live.values()), f"{kind}{entry} is in use"
        assert self._left.get((kind, entry), -GRACE) + GRACE <= self.now, f"{kind}{entry} reused too soon"

    def _write_verdicts(self, first: int, data: bytes) -> None:
        words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
        owners = {s for s, live in self._live.items() for i in range(len(words)) if ("v", first + i) in live}
        for i, word in enumerate(words):
            if not owners:
                self._writable("v", first + i, abi.VERDICTS)
            self.verdicts[first + i] = word
        for service in owners:
            self._changed(service)

    def _set_service(self, index: int, word: int) -> None:
        assert 0 < index < abi.SERVICES
        assert self._freed.get(index, -GRACE) + GRACE <= self.now, "index reused too soon"
        if not word:
            assert self.services[index]
            self._zeroed[index] = self.now
        self.services[index] = word
        self._changed(index)

    def _changed(self, service: int) -> None:
        before, after = self._live.get(service, set()), set(self._reach(service))
        others = [live for other, live in self._live.items() if other != service]
        assert not any(after & live for live in others), "an entry of two services"
        self._live[service] = after
        self._left.update((entry, self.now) for entry in before - after)
        for entry in after:
            assert entry[1] > 0

    def _reach(self, service: int) -> Iterator[Entry]:
        word = self.services[service]
        if not word & abi.SERVICE_LIVE:
            return
        groups = [word & 0xFFFFFFFF]
        if word & abi.SERVICE_PER_CLASS:
            first, size = groups[0], word >> abi.SERVICE_CAPACITY_SHIFT & 0xFFFF
            yield from (("v", first + i) for i in range(size))
            groups = [self.verdicts[first + i] for i in range(size) if self.verdicts[first + i]]
        for group in groups:
            yield "g", group
            first, count, _, _, _, owner, *_ = abi.GROUP.unpack(self.groups[group])
            assert owner == service
            yield from (("b", first + i) for i in range(count))

    def _check(self, service: int) -> None:
        key = next(key for key, index in self.keys.items() if index == service)
        for kind, entry in self._live[service]:
            if kind == "g":
                assert abi.GROUP.unpack(self.groups[entry])[-1] == key_tag(unpack_key(key))

    def dump(self) -> Dump:
        def joined(entries: dict[int, bytes], size: int) -> bytes:
            return b"".join(entries.get(i, bytes(size)) for i in range(max(entries, default=0) + 1))

        return Dump(
            dict(self.keys),
            joined({i: word.to_bytes(8, "little") for i, word in self.services.items()}, 8),
            joined({i: word.to_bytes(8, "little") for i, word in self.verdicts.items()}, 8),
            joined(self.groups, 32),
            joined(self.backends, 16),
        )

    # --- the service table

    def set_services(self, services: Iterable[Service], apps: Iterable[App]) -> None:
        addresses = {app.id: app.ip for app in apps if app.own_ip is None}
        self.listening, self.real = {}, {}
        for s in services:
            self.listening.setdefault((s.app, s.port, s.protocol), []).append(s)
            if s.app in addresses:  # a pod's ports are its own network's
                self.real[s.real_port, s.protocol] = (addresses[s.app], s.port)

    def _listens(self, app: int, port: int, protocol: int, never: BindScope) -> bool:
        return any(s.scope is not never for s in self.listening.get((app, port, protocol), ()))

    # --- look-up

    def outcome(self, app: App, app_class: int, to: Destination) -> Outcome:
        """What connect() comes to."""
        if app.own_ip is None:
            return self._outcome(app, app_class, to)
        if to.address.is_loopback or to.address.is_link_local or not int(to.address):
            return "direct", None
        found = self._outcome(app, app_class, to)
        targets = found[1] if isinstance(found[1], dict) else {}
        on_loopback = any(target[:2] == ("address", LOOPBACK_IP) for target in targets)
        return ("refused", ECONNREFUSED) if on_loopback else found  # the node's, where a pod cannot go

    def _outcome(self, app: App, app_class: int, to: Destination) -> Outcome:
        if to.address.is_loopback or not int(to.address):
            if self._listens(app.id, to.port, to.protocol, BindScope.VIRTUAL):
                return "chosen", {("app", app.id, to.port): Fraction(1)}
            return self._nameserver(app_class, to) or ("refused", ECONNREFUSED)
        if to.address.is_link_local:
            return self._nameserver(app_class, to) or ("refused", EACCES)
        ip, port = to.address, to.port
        found = self._balance(ip, port, port, app_class, to.protocol)
        if found is None and ip in self.local and (to.port, to.protocol) in self.real:
            ip, port = self.real[to.port, to.protocol]
            found = self._balance(ip, port, port, app_class, to.protocol)
        if found is None or found[0] == "dead":
            other = self._balance(ip, 0, port, app_class, to.protocol)
            if other is not None and not (found is not None and other[0] == "refused"):
                found = other
        if found is None:
            found = self._balance(IPv4Address(0), 0, port, app_class, to.protocol) or ("direct", None)
        return ("refused", found[1]) if found[0] == "dead" else found

    def _nameserver(self, app_class: int, to: Destination) -> Outcome | None:
        ip = to.address if int(to.address) else IPv4Address("127.0.0.1")
        found = self._balance(ip, 53, 53, app_class, to.protocol) if to.port == 53 else None
        return found if found and found[0] == "chosen" else None

    def _find_group(self, ip: IPv4Address, port: int, app_class: int, protocol: int) -> bytes | int | None:
        key = abi.KEY.pack(ip.packed, port, protocol, 0)
        word = self.services[self.keys[key]] if key in self.keys else 0
        if not word & abi.SERVICE_LIVE:
            return None
        slot = word & 0xFFFFFFFF
        if word & abi.SERVICE_PER_CLASS:
            app_class = app_class >> 16 if word & abi.SERVICE_PER_PEER else app_class & 0xFFFF
            if app_class >= (word >> abi.SERVICE_CAPACITY_SHIFT & 0xFFFF):
                return EACCES
            slot = self.verdicts[slot + app_class]
        return self.groups.get(slot)

    def _balance(
        self, ip: IPv4Address, key_port: int, port: int, app_class: int, protocol: int
    ) -> Outcome | None:
        group = self._find_group(ip, key_port, app_class, protocol)
        if group is None:
            return None
        if isinstance(group, int):
            return "refused", group
        first, count, kind, policy, error, *_ = abi.GROUP.unpack(group)
        if kind == abi.KIND_DIRECT:
            return "direct", None
        if kind == abi.KIND_REFUSE:
            return "refused", error
        assert kind == abi.KIND_BALANCE
        chances: dict[Target, Fraction] = {}
        for i in range(count):
            _, _, _, _, alias, threshold = abi.BACKEND.unpack(self.backends[first + i])
            keep = Fraction(threshold + 1, 1 << 32) if policy == abi.POLICY_RANDOM else Fraction(1)
            for entry, chance in ((i, keep), (alias, 1 - keep)):
                target = self._take(self.backends[first + entry], port, protocol) if chance else None
                if target:
                    chances[target] = chances.get(target, Fraction(0)) + chance / count
        total = sum(chances.values())
        if not total:
            return ("dead", error) if error else ("direct", None)
        return "chosen", {target: chance / total for target, chance in chances.items()}

    def _take(self, backend: bytes, port: int, protocol: int) -> Target | None:
        raw, own_port, kind, _, _, _ = abi.BACKEND.unpack(backend)
        port = own_port or port
        if kind == abi.BACKEND_ADDRESS:
            return "address", int.from_bytes(raw, "big"), port
        app = int.from_bytes(raw, "little")
        return ("app", app, port) if self._listens(app, port, protocol, BindScope.LOOPBACK) else None
