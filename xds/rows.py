"""Rows (a VIP and port, and what it leads to), and the vservices that they make."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from appswitch.model import LbPolicy, PortMap, VService
from appswitch.xds.balance import Member, combine
from appswitch.xds.resources import Weighted

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
    clusters: tuple[Weighted, ...] = ()
    """Those of `parts`, and those that do not exist."""
    vhost: str = ""
    """The virtual host that led here, without its port; empty: a TCP proxy did."""

    def led_by(self, clusters: tuple[Weighted, ...]) -> bool:
        """Whether these lead where this row does."""
        return self.clusters == tuple(part for part in clusters if part.weight)


Made = dict[tuple[int, tuple[IPv4Address, ...]], tuple[Row, VService]]
"""Vservices by the identity of the row (hashing it takes longer than making a vservice) and the VIPs."""


def vservices(rows: dict[Key, Row], before: Made) -> Made:
    """One for each host and port, sorted by name; what `before` has is taken from there.

    A VIP that leads elsewhere than its host's others gets one of its own, with the VIP in its name.
    """
    groups: dict[tuple[str, int], list[tuple[Row, list[IPv4Address]]]] = {}
    for (address, port), row in sorted(rows.items(), key=lambda item: (int(item[0][0]), item[0][1])):
        variants = groups.setdefault((row.host, port), [])
        for other, addresses in variants:
            if (other.parts, other.policy) == (row.parts, row.policy):
                addresses.append(address)
                break
        else:
            variants.append((row, [address]))
    result: Made = {}
    for (host, port), variants in groups.items():
        for number, (row, addresses) in enumerate(variants):
            vips = tuple(addresses)
            name = f"{host}:{port}" + (f"@{vips[0]}" if number else "")
            _, made = before.get((id(row), vips), (row, None))
            if made is None or made.name != name or made.ports[0].port != port:
                made = _vservice(name, vips, port, row)
            result[id(row), vips] = row, made
    return dict(sorted(result.items(), key=lambda item: item[1][1].name))


def _vservice(name: str, vips: tuple[IPv4Address, ...], port: int, row: Row) -> VService:
    backends = combine(row.parts)
    targets = {backend.port for backend in backends}
    target = targets.pop() if len(targets) == 1 else port
    return VService(
        name,
        vips,
        (PortMap(port, target),),
        backends,
        row.policy,
        origin="istio",
        ports_text=f"[{{{port} {target}}}]",
    )
