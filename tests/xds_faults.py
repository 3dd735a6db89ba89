"""How a client gets a fault: other parts in the place of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appswitch.xds.ads import Command, Event, Received, Send, SendDelta
from appswitch.xds.conformance.own import Parts
from appswitch.xds.conformance.transcript import Mode
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.held import Held, Taken
from appswitch.xds.resources import Response
from appswitch.xds.sotw import Sotw


def holding(held: type[Held]) -> Parts:
    """Faults of what is kept."""
    return Parts(dialogues={Mode.SOTW: lambda: Sotw(held()), Mode.DELTA: lambda: Delta(held())})


def speaking(sotw: type[Dialogue] = Sotw, delta: type[Dialogue] = Delta) -> Parts:
    """Faults of the dialogue."""
    return Parts(dialogues={Mode.SOTW: sotw, Mode.DELTA: delta})


Change = Callable[[Any, Event, list[Command]], list[Command]]


def saying(change: Change) -> Parts:
    """Faults of what is said: `change` gets the dialogue, the event, and what a good client would do."""

    class SotwSays(Sotw):
        def handle(self, event: Event) -> list[Command]:
            return change(self, event, super().handle(event))

    class DeltaSays(Delta):
        def handle(self, event: Event) -> list[Command]:
            return change(self, event, super().handle(event))

    return speaking(SotwSays, DeltaSays)


def each(change: Callable[[Event, Any], Any]) -> Parts:
    """The same for each request by itself; None: it is not sent."""

    def all_of_them(_: Any, event: Event, commands: list[Command]) -> list[Command]:
        changed = (change(event, item) if isinstance(item, Send | SendDelta) else item for item in commands)
        return [item for item in changed if item is not None]

    return saying(all_of_them)


def answers(event: Event, request: Any) -> bool:
    return isinstance(event, Received) and request.nonce == event.response.nonce != ""


def taking(change: Callable[[Response, bool], bool]) -> Parts:
    """Faults of when absence means removal."""

    class Other(Held):
        def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
            return super().take(response, whole=change(response, whole), now=now)

    return holding(Other)
