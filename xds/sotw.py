"""The state-of-the-world dialogue (StreamAggregatedResources) as a pure state machine.

What is asked of a client stands in Envoy's xds_protocol document; the traps: CDS and LDS answers are complete
(absence removes), EDS and RDS answers are partial (absence means nothing); an empty list of names in EDS or
RDS unsubscribes, so the first request is sent only once there are names.
"""

from __future__ import annotations

from appswitch.xds.ads import Command, Send
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.held import WILDCARD, Held, Taken
from appswitch.xds.resources import ORDER, Response


class Sotw(Dialogue):
    """The client's side of it."""

    def __init__(self, held: Held | None = None) -> None:
        super().__init__(held)
        self._nonces: dict[str, str] = {}
        """By type, of this stream; a type that was asked for has one, if empty."""

    def _forget(self) -> None:
        self._nonces.clear()

    def _begin(self) -> list[Command]:
        commands: list[Command] = []
        for url in ORDER:
            if url in WILDCARD or self.held.types[url].names:
                commands.append(self._request(url, first=not commands))
        return commands

    def _request(self, url: str, *, error: str = "", first: bool = False) -> Send:
        state = self.held.types[url]
        return Send(url, state.version, self._nonces.setdefault(url, ""), state.names, error, first)

    def _take(self, response: Response, now: float) -> Taken:
        self._nonces[response.type_url] = response.nonce
        return self.held.take(response, whole=response.type_url in WILDCARD, now=now)

    def _answer(self, response: Response, error: str) -> Command:
        return self._request(response.type_url, error=error)

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        self.held.subscribe(url, names)
        return [self._request(url)] if names or url in self._nonces else []
