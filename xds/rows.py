"""Rows (a VIP and port, and what it leads to), and the vservices that they make."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from appswitch.model import LbPolicy, PortMap, VService
from appswitch.xds.balance import Member, combine

Key = tuple[IPv4Address, int]
"""VIP and port."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a VIP and port leads to."""

    host: str
    listener: str
    """Name of the listener it comes from."""
    parts: tuple[tuple[int, tuple[Member, ...]], ...]
    """(weight, members) of each cluster."""
    policy: LbPolicy


def vservices(rows: dict[Key, Row]) -> tuple[VService, ...]:
    """One for each host and port; a VIP that leads elsewhere than its host's others gets one of its own."""
    groups: dict[tuple[str, int], dict[tuple[object, ...], list[IPv4Address]]] = {}
    for (address, port), row in sorted(rows.items()):
        same = groups.setdefault((row.host, port), {})
        same.setdefault((row.parts, row.policy), []).append(address)
    result = []
    for (host, port), variants in groups.items():
        for number, addresses in enumerate(variants.values()):
            row = rows[addresses[0], port]
            backends = combine(row.parts)
            targets = {backend.port for backend in backends}
            target = targets.pop() if len(targets) == 1 else port
            result.append(
                VService(
                    f"{host}:{port}" + (f"@{addresses[0]}" if number else ""),
                    tuple(addresses),
                    (PortMap(port, target),),
                    backends,
                    row.policy,
                    origin="istio",
                    ports_text=f"[{{{port} {target}}}]",
                )
            )
    return tuple(sorted(result, key=lambda item: item.name))
