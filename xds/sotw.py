"""The state-of-the-world dialogue (StreamAggregatedResources) as a pure state machine.

What is asked of a client stands in Envoy's xds_protocol document; the traps: CDS and LDS answers are complete
(absence removes), EDS and RDS answers are partial (absence means nothing); an empty list of names in EDS or
RDS unsubscribes, so the first request is sent only once there are names.
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
    Send,
)
from appswitch.xds.resources import ORDER, Response


class Sotw:
    """One client of one server; see `ads.Ads`."""

    def __init__(self, held: Held | None = None) -> None:
        """`held`: what another dialogue has brought so far."""
        self.held = held or Held()
        self._nonces: dict[str, str] = {}
        """By type, of this stream; a type that was asked for has one, if empty."""

    def handle(self, event: Event) -> list[Command]:
        """See `ads.Ads`."""
        match event:
            case Connected():
                return self._connected()
            case Received(response):
                return self._received(response)
            case Disconnected():
                self._nonces.clear()
                return []

    def _connected(self) -> list[Command]:
        self._nonces.clear()
        commands: list[Command] = []
        for url in ORDER:
            if url in WILDCARD or self.held.types[url].names:
                commands.append(self._request(url, first=not commands))
        return commands

    def _request(self, url: str, *, error: str = "", first: bool = False) -> Send:
        state = self.held.types[url]
        return Send(url, state.version, self._nonces.setdefault(url, ""), state.names, error, first)

    def _received(self, response: Response) -> list[Command]:
        url = response.type_url
        if url not in self.held.types:
            return [Ignored(url)]
        self._nonces[url] = response.nonce
        taken = self.held.take(response, whole=url in WILDCARD)
        commands: list[Command] = [self._request(url, error=taken.error), *taken.told]
        if url in CHILD:
            commands += self._subscribe(CHILD[url], self.held.wanted(url))
        if taken.changed:
            commands.append(Publish(self.held.config()))
        return commands

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        if names == self.held.types[url].names:
            return []
        self.held.subscribe(url, names)
        return [self._request(url)] if names or url in self._nonces else []
