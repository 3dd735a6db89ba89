"""Weights come out exactly, in tables as small as the number of backends."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.interceptor.alias import KEEP, MAX_EXPANDED, UNIT, alias_table, spread

weights = st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=40).map(tuple)
small = st.lists(st.integers(1, 20), min_size=1, max_size=20).map(tuple)


def chances(table: tuple[tuple[int, int], ...]) -> list[Fraction]:
    """What the program's two draws come to."""
    found = [Fraction(0)] * len(table)
    for i, (alias, threshold) in enumerate(table):
        keep = Fraction(threshold + 1, UNIT)
        found[i] += keep / len(table)
        found[alias] += (1 - keep) / len(table)
    return found


@settings(max_examples=100, deadline=None)
@given(weights)
def test_alias_is_exact(given_weights: tuple[int, ...]) -> None:
    table = alias_table(given_weights)
    assert len(table) == len(given_weights)
    assert all(0 <= alias < len(table) and 0 <= threshold <= KEEP for alias, threshold in table)
    found = chances(table)
    assert sum(found) == 1
    for chance, weight in zip(found, given_weights, strict=True):
        assert abs(chance - Fraction(weight, sum(given_weights))) <= Fraction(1, len(table) * UNIT)


def test_equal_weights_never_draw_twice() -> None:
    assert alias_table((7, 7, 7)) == ((0, KEEP), (1, KEEP), (2, KEEP))


def test_eighty_twenty() -> None:
    assert chances(alias_table((80, 20)))[0] == pytest.approx(0.8, abs=2**-32)


def test_a_feather_among_mountains_stays_possible() -> None:
    found = chances(alias_table((1, 2**32 - 1, 2**32 - 1)))
    assert found[0] > 0 and sum(found) == 1


@settings(max_examples=100, deadline=None)
@given(small)
def test_spread_is_exact(given_weights: tuple[int, ...]) -> None:
    counts = Counter(spread(given_weights))
    total = sum(counts.values())
    for i, weight in enumerate(given_weights):
        assert Fraction(counts[i], total) == Fraction(weight, sum(given_weights))


@settings(max_examples=100, deadline=None)
@given(small)
def test_spread_is_even(given_weights: tuple[int, ...]) -> None:
    """In every prefix each backend is within one turn and a half of its due."""
    order = spread(given_weights)
    seen: Counter[int] = Counter()
    for position, i in enumerate(order, 1):
        seen[i] += 1
        due = position * given_weights[i] / sum(given_weights)
        assert abs(seen[i] - due) <= len(given_weights) / 2 + 1


@pytest.mark.parametrize(
    ("given_weights", "order"),
    [((1,), (0,)), ((5, 5), (0, 1)), ((2, 1), (0, 1, 0)), ((3, 1), (0, 0, 1, 0))],
)
def test_spread_order(given_weights: tuple[int, ...], order: tuple[int, ...]) -> None:
    assert spread(given_weights) == order


def test_spread_has_an_end() -> None:
    order = spread((1, 1_000_000, 999_999))
    assert len(order) <= MAX_EXPANDED + 3
    assert set(order) == {0, 1, 2}


@pytest.mark.parametrize("wrong", [(), (0,), (1, 0), (-1, 2)])
@pytest.mark.parametrize("function", [alias_table, spread])
def test_only_positive_weights(function: object, wrong: tuple[int, ...]) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="positive"):
        function(wrong)
