"""How weights become table entries: the alias method, and a spread order for round robin.  Pure.

Both cost the program one or two reads whatever the number of backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd
from typing import Final

KEEP: Final = 0xFFFF_FFFF
"""A threshold that no 32-bit number exceeds."""
UNIT: Final = 1 << 32
"""A column's part of the whole: as many values as the program draws."""
MAX_EXPANDED: Final = 1024
"""Entries of a round-robin group with unequal weights."""


@lru_cache(maxsize=4096)
def alias_table(weights: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(alias, threshold) of each column, by Vose's method in integers.

    The program takes column i = random % n and keeps it if another 32-bit random number is at most
    `threshold`, else takes `alias`.  Weights are positive and below 2**32; each one's probability is
    exact to the nearest 1/(n * 2**32).
    """
    units = _apportion(weights)
    table = [(i, KEEP) for i in range(len(units))]
    small = [i for i, part in enumerate(units) if part < UNIT]
    large = [i for i, part in enumerate(units) if part >= UNIT]
    while small and large:
        column, giver = small.pop(), large[-1]
        table[column] = (giver, units[column] - 1)
        units[giver] -= UNIT - units[column]
        if units[giver] < UNIT:
            small.append(large.pop())
    return tuple(table)


def _apportion(weights: Sequence[int]) -> list[int]:
    """n * 2**32 units divided in proportion (largest remainder), so that they add up exactly."""
    if not weights or min(weights) <= 0:
        raise ValueError(f"weights must be positive: {weights!r}")
    whole, total = len(weights) * UNIT, sum(weights)
    units = [max(1, weight * whole // total) for weight in weights]
    rest = whole - sum(units)
    order = sorted(range(len(weights)), key=lambda i: (-(weights[i] * whole % total), i))
    for i in order[: max(rest, 0)]:
        units[i] += 1
    if rest < 0:  # weights beyond 2**32 apart: what was rounded up to 1 is taken from the heaviest
        units[max(range(len(weights)), key=weights.__getitem__)] += rest
    return units


@lru_cache(maxsize=4096)
def spread(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Indices in round-robin order, each as often as its weight says and evenly apart.

    Weights are scaled to at most 1,024 entries (each backend at least once).
    """
    if not weights or min(weights) <= 0:
        raise ValueError(f"weights must be positive: {weights!r}")
    divisor = gcd(*weights)
    counts = [weight // divisor for weight in weights]
    if (total := sum(counts)) > MAX_EXPANDED:
        counts = [max(1, count * MAX_EXPANDED // total) for count in counts]
    turns = [((2 * k + 1) / count, i) for i, count in enumerate(counts) for k in range(count)]
    return tuple(i for _, i in sorted(turns))
