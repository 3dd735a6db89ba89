"""Which names the built-in DNS server knows, and the addresses behind them.  Pure.

Three sources, the first that has a name decides: vservices made by the user, apps (`--name`), Istio's
name table.  Names are kept lower-case, without a dot at the end and without our domain: the server
looks for `web.appswitch.local` under `web`.  A name of Istio's may begin with `*.`, and then answers
for everything below (as in Istio's own DNS proxy), unless an exact name does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from appswitch.errors import InvalidInput
from appswitch.model import App, Snapshot, VService

MAX_NAME = 253
"""Characters of a name without its last dot (RFC 1035 2.3.4: 255 bytes on the wire)."""
VIP_RANGE = IPv4Network("241.0.0.0/8")
"""`--vip-range`'s default: reverse look-ups of it are never forwarded."""

Addresses = tuple[IPv4Address, ...]
Sources = tuple[tuple[VService, ...], tuple[App, ...], tuple[tuple[str, Addresses], ...]]

_PLAIN = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@lru_cache(maxsize=65536)
def normal_name(text: str) -> str:
    """A host name in the form names are compared in: lower case, IDNA, no dot at the end.

    Letters, digits, `-`, `_` and, in front, `*.` are allowed; InvalidInput says what is wrong.
    """
    name = text.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise InvalidInput(f"{text!r} is no DNS name: {error}") from error
    if len(name) > MAX_NAME:
        raise InvalidInput(f"{text[:20]!r}… is no DNS name: longer than {MAX_NAME} characters")
    if not _PLAIN.fullmatch(name.removeprefix("*.")):
        raise InvalidInput(
            f"{text!r} is no DNS name: labels of 1 to 63 letters, digits, '-' or '_' between dots"
        )
    return name


@dataclass(frozen=True, slots=True)
class Zone:
    """Names of one source, both ways."""

    addresses: Mapping[str, Addresses] = field(default_factory=dict)
    pointers: Mapping[IPv4Address, tuple[str, ...]] = field(default_factory=dict)
    above: frozenset[str] = frozenset()
    """What other names end in: `b.c` for `a.b.c`.  Such a name exists too, without addresses (RFC 8020)."""
    wildcards: bool = False
    """Whether any name begins with `*.`."""

    @staticmethod
    def of(pairs: Iterable[tuple[str, Addresses]]) -> Zone:
        """Index `pairs`; a name given twice has the addresses of both.

        What is no host name is left out: a vservice may be called anything, and not all can be asked for.
        """
        addresses: dict[str, Addresses] = {}
        pointers: dict[IPv4Address, dict[str, None]] = {}
        above: set[str] = set()
        wildcards = False
        for text, found in pairs:
            try:
                name = normal_name(text)
            except InvalidInput:
                continue
            before = addresses.get(name)
            addresses[name] = tuple(dict.fromkeys(before + found)) if before else found
            _, _, parent = name.partition(".")
            while parent and parent not in above:
                above.add(parent)
                _, _, parent = parent.partition(".")
            if name.startswith("*."):
                wildcards = True
                continue
            for address in found:
                pointers.setdefault(address, {})[name] = None
        full = {address: _full(names) for address, names in pointers.items()}
        return Zone(addresses, full, frozenset(above), wildcards)

    def find(self, name: str) -> Addresses | None:
        """The addresses of exactly this name."""
        return self.addresses.get(name)

    def find_wildcard(self, name: str) -> Addresses | None:
        """The addresses of the longest `*.suffix` that covers the name."""
        if self.wildcards:
            _, dot, rest = name.partition(".")
            while dot:
                if (found := self.addresses.get("*." + rest)) is not None:
                    return found
                _, dot, rest = rest.partition(".")
        return None


def _full(names: Mapping[str, None]) -> tuple[str, ...]:
    """Without the short forms: `web.ns` goes where there is `web.ns.svc.cluster.local`."""
    if len(names) == 1:
        return tuple(names)
    return tuple(sorted(n for n in names if not any(other.startswith(n + ".") for other in names)))


@dataclass(frozen=True, slots=True)
class NameTable:
    """Everything that DNS answers itself, frozen; the server swaps it by one assignment."""

    zones: tuple[Zone, Zone, Zone] = (Zone(), Zone(), Zone())
    """Of vservices, apps and Istio: in the order in which they are asked."""
    virtual: IPv4Network = VIP_RANGE
    """Addresses that only we know names of."""
    sources: Sources = ((), (), ())
    """What the zones were made from: a source that did not change is not indexed again."""

    @staticmethod
    def build(
        snapshot: Snapshot, virtual: IPv4Network = VIP_RANGE, previous: NameTable | None = None
    ) -> NameTable:
        """All names of a snapshot; `previous`, the table before, makes it cheap."""
        sources: Sources = (snapshot.vservices, snapshot.apps, snapshot.names)
        vservices, apps, names = sources
        # Comparing tuples of the same objects compares no objects: microseconds for 10,000 of them.
        before = previous or NameTable()
        same = [
            zone if old == new else None
            for zone, old, new in zip(before.zones, before.sources, sources, strict=True)
        ]
        zones = (
            same[0] or Zone.of((one.name, one.addresses) for one in vservices if one.origin != "istio"),
            same[1] or Zone.of((one.name, (one.ip,)) for one in sorted(apps, key=_by_ip) if one.name),
            same[2] or Zone.of(names),
        )
        return NameTable(zones, virtual, sources)

    def addresses(self, name: str) -> Addresses | None:
        """The addresses of a normal name, or None if nobody has it."""
        for zone in self.zones:
            if (found := zone.find(name)) is not None:
                return found
        for zone in self.zones:
            if (found := zone.find_wildcard(name)) is not None:
                return found
        return None

    def names_of(self, address: IPv4Address) -> tuple[str, ...]:
        """The names of an address; empty if it has none."""
        return tuple(dict.fromkeys(name for zone in self.zones for name in zone.pointers.get(address, ())))

    def is_above(self, suffix: str) -> bool:
        """Whether any name ends in `.suffix`."""
        return any(suffix in zone.above for zone in self.zones)


def _by_ip(app: App) -> IPv4Address:
    return app.ip
