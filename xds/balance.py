"""From a cluster's endpoints to weights: health, priorities, localities, as Envoy spreads them.

Integers throughout: a weight is a share of the sum of all, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from ipaddress import IPv4Address
from math import gcd, lcm

from appswitch.model import Backend
from appswitch.xds.resources import Assignment, Cluster, Endpoint, Locality

Member = tuple[IPv4Address, int, int]
"""Address, port, weight."""

MAX_TOTAL = 1 << 20
"""Of the weights of one vservice; larger ones are scaled down, each to at least 1."""


def spread(cluster: Cluster, assignment: Assignment) -> tuple[Member, ...]:
    """The endpoints that get connections, each once, with their weights."""
    levels = _levels(cluster, assignment)
    loads = _loads(levels, assignment.overprovisioning)
    if not loads:  # nobody is healthy: panic spreads over all, unless it is switched off
        levels = [_everyone(level) for level in levels] if cluster.panic_percent > 0 else []
        loads = _loads(levels, assignment.overprovisioning)
    used = [(level, load) for level, load in zip(levels, loads, strict=False) if load]
    if len(used) == 1 and not cluster.locality_weighted:
        return _plain(used[0][0])
    shares: dict[tuple[IPv4Address, int], Fraction] = {}
    for level, load in used:
        for address, share in _level_shares(level, cluster.locality_weighted, assignment.overprovisioning):
            shares[address] = shares.get(address, Fraction(0)) + share * load / 100
    scale = lcm(*(share.denominator for share in shares.values()))
    return tuple((ip, port, int(share * scale)) for (ip, port), share in shares.items())


def combine(parts: Sequence[tuple[int, tuple[Member, ...]]]) -> tuple[Backend, ...]:
    """Backends of several clusters, (weight, members) each: the weights say each cluster's share."""
    filled = [(weight, *_reduced(members)) for weight, members in parts if members]
    scale = lcm(*(total for _, _, total in filled)) if len(filled) > 1 else 0
    weights: dict[tuple[IPv4Address, int], int] = {}
    for weight, members, total in filled:
        factor = weight * (scale // total) if scale else 1
        for ip, port, own in members:
            weights[ip, port] = weights.get((ip, port), 0) + own * factor
    total = sum(weights.values())
    if total > MAX_TOTAL:
        weights = {key: max(1, weight * MAX_TOTAL // total) for key, weight in weights.items()}
    by_address = sorted(weights.items(), key=lambda item: (int(item[0][0]), item[0][1]))
    return tuple(Backend(ip, port, weight) for (ip, port), weight in by_address)


def _reduced(members: tuple[Member, ...]) -> tuple[tuple[Member, ...], int]:
    """The same shares in the smallest integers, and their sum."""
    divisor = gcd(*(member[2] for member in members))
    reduced = tuple((ip, port, weight // divisor) for ip, port, weight in members)
    return reduced, sum(member[2] for member in reduced)


def _levels(cluster: Cluster, assignment: Assignment) -> list[list[Locality]]:
    """Localities by priority, those out of balance left out."""
    levels: dict[int, list[Locality]] = {}
    for locality in assignment.localities:
        if locality.weight or not cluster.locality_weighted:
            levels.setdefault(locality.priority, []).append(locality)
    return [levels[priority] for priority in sorted(levels)]


def _everyone(level: list[Locality]) -> list[Locality]:
    return [
        Locality(
            locality.place,
            locality.priority,
            locality.weight,
            tuple(Endpoint(item.host, item.ip, item.port, item.weight) for item in locality.endpoints),
        )
        for locality in level
    ]


def _usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.healthy and endpoint.ip is not None]


def _loads(levels: list[list[Locality]], overprovisioning: int) -> list[int]:
    """Percent of the connections for each priority (Envoy, "priority levels"); empty if none is healthy."""
    healths = []
    for level in levels:
        endpoints = [endpoint for locality in level for endpoint in locality.endpoints]
        healths.append(
            min(100, overprovisioning * len(_usable(endpoints)) // len(endpoints)) if endpoints else 0
        )
    total = min(100, sum(healths))
    if total == 0:
        return []
    loads, left = [], 100
    for health in healths:
        load = min(left, health * 100 // total)
        loads.append(load)
        left -= load
    first = next(index for index, load in enumerate(loads) if load)
    loads[first] += left  # what rounding left over
    return loads


def _plain(level: list[Locality]) -> tuple[Member, ...]:
    members: dict[tuple[IPv4Address, int], int] = {}
    for locality in level:
        for endpoint in _usable(locality.endpoints):
            if endpoint.ip is not None:  # a service with several VIPs has each endpoint several times
                members.setdefault((endpoint.ip, endpoint.port), endpoint.weight)
    return tuple((ip, port, weight) for (ip, port), weight in members.items())


def _level_shares(
    level: list[Locality], locality_weighted: bool, overprovisioning: int
) -> list[tuple[tuple[IPv4Address, int], Fraction]]:
    """Shares of one priority's endpoints; they sum to 1."""
    groups: list[tuple[Fraction, tuple[Member, ...]]] = []
    if locality_weighted:
        for locality in level:
            healthy, all_of_it = len(_usable(locality.endpoints)), len(locality.endpoints)
            if healthy:
                available = min(Fraction(1), Fraction(overprovisioning * healthy, 100 * all_of_it))
                groups.append((locality.weight * available, _plain([locality])))
    else:
        groups.append((Fraction(1), _plain(level)))
    whole = sum(weight for weight, _ in groups)
    return [
        ((ip, port), Fraction(own, sum(member[2] for member in members)) * weight / whole)
        for weight, members in groups
        for ip, port, own in members
    ]
