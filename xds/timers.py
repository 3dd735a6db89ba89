"""Until when a resource that was asked for is waited for, and until when one that came is valid.  Pure.

The first is the resource's initial_fetch_timeout (Envoy's ConfigSource; gRPC proposal A57): it runs while a
stream is open, and over means that the resource does not exist.  The second is the time to live of Envoy's
xds_protocol document ("TTL"): it runs without a stream too, each time that the resource is sent begins it
anew, and over means that the resource is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NEVER_CAME = "it did not come within its initial_fetch_timeout"
TOO_OLD = "its time to live (TTL) is over"


@dataclass(slots=True)
class Timers:
    """Those of one resource type."""

    _waits: dict[str, float] = field(default_factory=dict)
    """When what was asked for and has not come is given up."""
    _lives: dict[str, float] = field(default_factory=dict)
    """When what is in force ends."""

    def wait(self, patience: Mapping[str, float], now: float) -> None:
        """These were asked for, with so many seconds' patience each; what is waited for already goes on."""
        for name, seconds in patience.items():
            if seconds != float("inf"):
                self._waits.setdefault(name, now + seconds)

    def came(self, names: Iterable[str]) -> None:
        """Good or bad, or the server says why it does not come: it is not waited for."""
        for name in names:
            self._waits.pop(name, None)

    def live(self, name: str, ttl: float | None, now: float) -> None:
        """It was sent, and is valid for so many seconds; None: for ever."""
        if ttl is None:
            self._lives.pop(name, None)
        else:
            self._lives[name] = now + ttl

    def forget(self, name: str) -> None:
        """It is not in force, or not asked for, any more."""
        self._waits.pop(name, None)
        self._lives.pop(name, None)

    def disconnected(self) -> None:
        """Nothing can come: nothing is waited for."""
        self._waits.clear()

    def due(self) -> float | None:
        """When the next one is over."""
        return min((*self._waits.values(), *self._lives.values()), default=None)

    def over(self, now: float) -> dict[str, str]:
        """Names whose time is over, and why; they have no timer any more."""
        late = {name: NEVER_CAME for name, at in self._waits.items() if at <= now}
        late |= {name: TOO_OLD for name, at in self._lives.items() if at <= now}
        for name in late:
            self.forget(name)
        return late
