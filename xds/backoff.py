"""How long to wait before the next stream.  Chance comes in by argument."""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.5
"""Seconds after the first failure; doubled with each further one."""
CAP = 15.0
"""Seconds at most, jitter included: an Istiod that comes back is found within this time."""
AGAIN = 0.1
"""Seconds at most where a stream that had answered ended: Istiod ends each after 30 minutes by design."""


class Backoff:
    """Exponential, with jitter, back to nothing after the first response of a stream."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        """`uniform(low, high)` as in `random`: nodes that lost one Istiod must not return all at once."""
        self._uniform = uniform
        self._failures = 0

    def after(self, answered: bool) -> float:
        """Seconds to wait after a stream ended; `answered`: it brought at least one response."""
        if answered:
            self._failures = 0
            return self._uniform(0.0, AGAIN)
        delay = min(CAP, FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return delay * self._uniform(0.5, 1.0)
