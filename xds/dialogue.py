"""What both ADS dialogues do alike: they are `sotw.py` and `delta.py`.  Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod

from appswitch.xds.ads import Command, Connected, Disconnected, Elapsed, Event, Ignored, Publish, Received
from appswitch.xds.held import Held, Taken
from appswitch.xds.resources import CDS, EDS, LDS, RDS, Response

CHILD = {CDS: EDS, LDS: RDS}


class Dialogue(ABC):
    """One client of one server, as a state machine.  Not for several threads at once."""

    def __init__(self, held: Held | None = None) -> None:
        """`held`: what another dialogue has brought so far."""
        self.held = held or Held()
        self._open = False
        """There is a stream."""

    def handle(self, event: Event) -> list[Command]:
        """What to do now, in this order."""
        match event:
            case Connected(now):
                self._forget()
                self._open = True
                commands = self._begin()
                for parent, child in CHILD.items():
                    self.held.expect(child, self.held.wanted(parent), now)
                return commands
            case Received(response, now):
                self._open = True
                return self._received(response, now)
            case Disconnected():
                self._open = False
                self._forget()
                self.held.disconnected()
                return []
            case Elapsed(now):
                return self._elapsed(now)

    def _received(self, response: Response, now: float) -> list[Command]:
        url = response.type_url
        if url not in self.held.types:
            return [Ignored(url)]
        taken = self._take(response, now)
        commands = [self._answer(response, taken.error), *taken.told, *self._follow(url, now)]
        if taken.changed:
            commands.append(Publish(self.held.config()))
        return commands

    def _elapsed(self, now: float) -> list[Command]:
        """Times are over; what is gone takes its children with it."""
        told = self.held.elapsed(now)
        if not told:
            return []
        follow = [command for parent in CHILD for command in self._follow(parent, now)]
        return [*told, *follow, Publish(self.held.config())]

    def _follow(self, url: str, now: float) -> list[Command]:
        """Ask for the children that resources of this type name now."""
        if url not in CHILD:
            return []
        child, wanted = CHILD[url], self.held.wanted(url)
        before, names = self.held.types[child].names, tuple(sorted(wanted))
        if names == before:
            return []
        if not self._open:
            self.held.subscribe(child, names)
            return []
        commands = self._subscribe(child, names)
        fresh = wanted.keys() - set(before)
        self.held.expect(child, {name: wanted[name] for name in fresh}, now)
        return commands

    @abstractmethod
    def _forget(self) -> None:
        """The stream is gone, and what was said on it."""

    @abstractmethod
    def _begin(self) -> list[Command]:
        """The first requests of a stream."""

    @abstractmethod
    def _take(self, response: Response, now: float) -> Taken:
        """Take a response over, as this dialogue means it."""

    @abstractmethod
    def _answer(self, response: Response, error: str) -> Command:
        """The ACK, or the NACK with its error."""

    @abstractmethod
    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        """Other names than before are asked for."""
