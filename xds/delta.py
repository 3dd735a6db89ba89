"""The incremental dialogue (DeltaAggregatedResources) as a pure state machine.

What is asked of a client stands in Envoy's xds_protocol document; the traps: a change of subscription has
an empty nonce, says only the difference and never rides on an answer (Istiod looks at it otherwise); after a
reconnect the whole subscription is said again, with the versions of what is in force (Istiod then tells
what was deleted meanwhile); versions may all be empty.
"""

from __future__ import annotations

from appswitch.xds.ads import (
    CHILD,
    WILDCARD,
    Command,
    Connected,
    Disconnected,
    Event,
    Held,
    Ignored,
    Publish,
    Received,
    SendDelta,
)
from appswitch.xds.resources import ORDER, Response


class Delta:
    """One client of one server; see `ads.Ads`."""

    def __init__(self, held: Held | None = None) -> None:
        """`held`: what another dialogue has brought so far."""
        self.held = held or Held()
        self._asked: set[str] = set()
        """Types that were asked for on this stream."""

    def handle(self, event: Event) -> list[Command]:
        """See `ads.Ads`."""
        match event:
            case Connected():
                return self._connected()
            case Received(response):
                return self._received(response)
            case Disconnected():
                self._asked.clear()
                return []

    def _connected(self) -> list[Command]:
        self._asked.clear()
        urls = [url for url in ORDER if url in WILDCARD or self.held.types[url].names]
        return [self._first(url, first=number == 0) for number, url in enumerate(urls)]

    def _first(self, url: str, *, first: bool = False) -> SendDelta:
        """The first request of a type on a stream."""
        state = self.held.types[url]
        self._asked.add(url)
        versions = tuple(sorted((name, state.versions[name]) for name in state.resources))
        return SendDelta(url, subscribe=state.names, versions=versions, first=first)

    def _received(self, response: Response) -> list[Command]:
        url = response.type_url
        if url not in self.held.types:
            return [Ignored(url)]
        taken = self.held.take(response, whole=False)
        commands: list[Command] = [SendDelta(url, response.nonce, error=taken.error), *taken.told]
        if url in CHILD:
            commands += self._subscribe(CHILD[url], self.held.wanted(url))
        if taken.changed:
            commands.append(Publish(self.held.config()))
        return commands

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        before, after = set(self.held.types[url].names), set(names)
        if before == after:
            return []
        self.held.subscribe(url, names)
        if url not in self._asked:
            return [self._first(url)]
        added, dropped = tuple(sorted(after - before)), tuple(sorted(before - after))
        return [SendDelta(url, subscribe=added, unsubscribe=dropped)]
