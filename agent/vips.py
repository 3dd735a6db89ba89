"""Virtual addresses for names: the same on every node, as long as nobody is in the way.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network

TRIES = 1024
"""Addresses tried by hash before the range is searched from its beginning."""


def candidates(name: str, network: IPv4Network) -> Iterator[IPv4Address]:
    """Addresses of the range, in the order in which this name takes them.

    The network's and the broadcast address are left out, and of a range larger than /22 the last
    256, where the built-in DNS server's is.
    """
    first, size = int(network.network_address), network.num_addresses
    usable = size - 257 if size > 1024 else size - 2
    if usable < 1:
        return
    for attempt in range(min(TRIES, 4 * usable)):
        digest = blake2b(f"{attempt}:{name.lower()}".encode(), digest_size=8).digest()
        yield IPv4Address(first + 1 + int.from_bytes(digest, "big") % usable)
    for offset in range(min(usable, 1 << 16)):
        yield IPv4Address(first + 1 + offset)
