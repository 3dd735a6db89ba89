"""What both ADS dialogues do alike: they are `sotw.py` and `delta.py`.  Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod

from appswitch.xds.ads import Command, Connected, Disconnected, Event, Ignored, Publish, Received
from appswitch.xds.held import Held, Taken
from appswitch.xds.resources import CDS, EDS, LDS, RDS, Response

CHILD = {CDS: EDS, LDS: RDS}


class Dialogue(ABC):
    """One client of one server, as a state machine.  Not for several threads at once."""

    def __init__(self, held: Held | None = None) -> None:
        """`held`: what another dialogue has brought so far."""
        self.held = held or Held()

    def handle(self, event: Event) -> list[Command]:
        """What to do now, in this order."""
        match event:
            case Connected():
                self._forget()
                return self._begin()
            case Received(response):
                return self._received(response)
            case Disconnected():
                self._forget()
                return []

    def _received(self, response: Response) -> list[Command]:
        url = response.type_url
        if url not in self.held.types:
            return [Ignored(url)]
        taken = self._take(response)
        commands = [self._answer(response, taken.error), *taken.told]
        if url in CHILD and (names := self.held.wanted(url)) != self.held.types[CHILD[url]].names:
            commands += self._subscribe(CHILD[url], names)
        if taken.changed:
            commands.append(Publish(self.held.config()))
        return commands

    @abstractmethod
    def _forget(self) -> None:
        """The stream is gone, and what was said on it."""

    @abstractmethod
    def _begin(self) -> list[Command]:
        """The first requests of a stream."""

    @abstractmethod
    def _take(self, response: Response) -> Taken:
        """Take a response over, as this dialogue means it."""

    @abstractmethod
    def _answer(self, response: Response, error: str) -> Command:
        """The ACK, or the NACK with its error."""

    @abstractmethod
    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        """Other names than before are asked for."""
