"""Waiting between streams."""

from __future__ import annotations

import random

from appswitch.xds.backoff import AGAIN, CAP, Backoff


def test_doubles_up_to_the_cap_and_starts_anew_after_an_answer() -> None:  # C41, C42
    backoff = Backoff(lambda _, high: high)
    assert [backoff.after(answered=False) for _ in range(7)] == [0.5, 1, 2, 4, 8, CAP, CAP]
    assert backoff.after(answered=True) == AGAIN
    assert backoff.after(answered=False) == 0.5


def test_jitter_stays_within_the_cap() -> None:
    backoff = Backoff(random.Random(7).uniform)
    waits = [backoff.after(answered=False) for _ in range(2000)]
    assert max(waits) <= CAP
    assert len(set(waits)) > 1900
    assert min(waits[20:]) >= CAP / 2
