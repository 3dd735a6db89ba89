"""The incremental dialogue (DeltaAggregatedResources) as a pure state machine.

What is asked of a client stands in Envoy's xds_protocol document; the traps: a change of subscription has
an empty nonce, says only the difference and never rides on an answer (Istiod looks at it otherwise); after a
reconnect the whole subscription is said again, with the versions of what is in force (Istiod then tells
what was deleted meanwhile); versions may all be empty.
"""

from __future__ import annotations

from appswitch.xds.ads import Command, SendDelta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.held import WILDCARD, Held, Taken
from appswitch.xds.resources import ORDER, Response


class Delta(Dialogue):
    """The client's side of it."""

    def __init__(self, held: Held | None = None) -> None:
        super().__init__(held)
        self._asked: set[str] = set()
        """Types that were asked for on this stream."""

    def _forget(self) -> None:
        self._asked.clear()

    def _begin(self) -> list[Command]:
        urls = [url for url in ORDER if url in WILDCARD or self.held.types[url].names]
        return [self._first(url, first=number == 0) for number, url in enumerate(urls)]

    def _first(self, url: str, *, first: bool = False) -> SendDelta:
        """The first request of a type on a stream."""
        state = self.held.types[url]
        self._asked.add(url)
        versions = tuple(sorted((name, state.versions[name]) for name in state.resources))
        return SendDelta(url, subscribe=state.names, versions=versions, first=first)

    def _take(self, response: Response, now: float) -> Taken:
        return self.held.take(response, whole=False, now=now)

    def _answer(self, response: Response, error: str) -> Command:
        return SendDelta(response.type_url, response.nonce, error=error)

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        before, after = set(self.held.types[url].names), set(names)
        self.held.subscribe(url, names)
        if url not in self._asked:
            return [self._first(url)]
        added, dropped = tuple(sorted(after - before)), tuple(sorted(before - after))
        return [SendDelta(url, subscribe=added, unsubscribe=dropped)]
