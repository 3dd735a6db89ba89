"""Keys, groups and rows as bytes of the kernel's maps, both ways.  Pure.

Reading never trusts what it finds: a row that makes no sense is None, and is written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct, pack
from sys import byteorder
from typing import Final

from appswitch.interceptor import abi
from appswitch.interceptor.commands import Dump
from appswitch.interceptor.index import Key
from appswitch.interceptor.rows import Group, Row

WORD: Final = Struct("=Q")
_MIX: Final = 0x9E37_79B1


def pack_key(key: Key) -> bytes:
    """`struct key`."""
    return abi.KEY.pack(key.address.to_bytes(4, "big"), key.port, key.protocol, 0)


def unpack_key(data: bytes) -> Key:
    """The reverse of `pack_key`."""
    address, port, protocol, _ = abi.KEY.unpack(data)
    return Key(int.from_bytes(address, "big"), port, protocol)


def key_tag(key: Key) -> int:
    """What a group carries of its key: 32 bits, different for keys that share an address or a port.

    A hash element may be recycled for another key while a program holds it; with the tag the
    program sees that the group is not its own.  In C: `ip * 0x9E3779B1u + (port << 16 | protocol)`,
    `ip` as it stands in the packet.
    """
    word = int.from_bytes(key.address.to_bytes(4, "big"), byteorder)
    return (word * _MIX + (key.port << 16 | key.protocol)) & 0xFFFF_FFFF


def pack_group(group: Group, first: int, service: int, tag: int) -> bytes:
    """`struct group`, its counter at 0."""
    return abi.GROUP.pack(
        first, group.count, group.kind, group.policy, group.error, service, 0, group.source_ip, tag
    )


def pack_words(words: Iterable[int]) -> bytes:
    """Verdict words."""
    listed = tuple(words)
    return pack(f"={len(listed)}Q", *listed)


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as half-open ranges."""
    first = last = -1
    for number in numbers:
        if number != last:
            if first >= 0:
                yield first, last
            first = number
        last = number + 1
    if first >= 0:
        yield first, last


@dataclass(frozen=True, slots=True)
class Found:
    """A row read back, and where its parts stand."""

    row: Row
    groups: tuple[int, ...]
    backends: tuple[int, ...]
    verdicts: int = 0
    capacity: int = 0


def read_service(dump: Dump, index: int) -> int:
    """A service's word; 0 if it is absent."""
    if (index + 1) * WORD.size > len(dump.services):
        return 0
    word = int(WORD.unpack_from(dump.services, index * WORD.size)[0])
    return word if word & abi.SERVICE_LIVE else 0


def read_row(dump: Dump, service: int, word: int, tag: int) -> Found | None:
    """The row behind a service's word; None if it makes no sense."""
    place = word & 0xFFFF_FFFF
    if not word & abi.SERVICE_PER_CLASS:
        read = _read_group(dump, place, service, tag)
        return None if read is None else Found(Row((read[0],)), (place,), (read[1],))
    capacity = word >> abi.SERVICE_CAPACITY_SHIFT & 0xFFFF
    end = (place + capacity) * WORD.size
    if not capacity or end > len(dump.verdicts):
        return None
    places: dict[int, int] = {}
    by_class: list[int] = []
    for (group,) in WORD.iter_unpack(dump.verdicts[place * WORD.size : end]):
        by_class.append(places.setdefault(group, len(places)) if group else -1)
    while by_class and by_class[-1] < 0:
        by_class.pop()
    found = [_read_group(dump, group, service, tag) for group in places]
    groups = [each for each in found if each is not None]
    if len(groups) < len(found):
        return None
    per_peer = bool(word & abi.SERVICE_PER_PEER)
    row = Row(tuple(group for group, _ in groups), tuple(by_class), per_peer)
    return Found(row, tuple(places), tuple(first for _, first in groups), place, capacity)


def _read_group(dump: Dump, index: int, service: int, tag: int) -> tuple[Group, int] | None:
    start = index * abi.GROUP.size
    if start + abi.GROUP.size > len(dump.groups):
        return None
    first, count, kind, policy, error, owner, _, source, found_tag = abi.GROUP.unpack_from(dump.groups, start)
    begin, end = first * abi.BACKEND.size, (first + count) * abi.BACKEND.size
    if (owner, found_tag) != (service, tag) or end > len(dump.backends):
        return None
    return Group(kind, policy, error, source, bytes(dump.backends[begin:end])), first
