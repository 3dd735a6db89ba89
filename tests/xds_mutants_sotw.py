"""A client with one fault for each of C01 to C22."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xds_faults import answers, each, holding, saying, speaking, taking

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Command, Config, Event, Received, Send
from appswitch.xds.conformance.own import Parts
from appswitch.xds.held import Held, HeldType, Taken
from appswitch.xds.resources import CDS, EDS, ORDER, RDS, Assignment, RawResource, Response
from appswitch.xds.sotw import Sotw


def ack_without_version(event: Event, request: Any) -> Any:
    return replace(request, version="") if answers(event, request) and not request.error else request


def nack_with_its_version(*, first: bool) -> Parts:
    def change(event: Event, request: Any) -> Any:
        if answers(event, request) and request.error and first == (request.version == ""):
            return replace(request, version=event.response.version)  # type: ignore[union-attr]
        return request

    return each(change)


class NeverForgives(Held):
    """Once rejected, always rejected."""

    def __init__(self) -> None:
        super().__init__()
        self.grudge: dict[str, str] = {}

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        taken = super().take(response, whole=whole, now=now)
        self.grudge.setdefault(response.type_url, taken.error)
        if error := self.grudge[response.type_url]:
            return replace(taken, error=error)
        del self.grudge[response.type_url]
        return taken


class AllOrNothing(Held):
    """One bad resource spoils the response."""

    def _open_all(self, state: HeldType, response: Response) -> Any:
        found, errors, unnamed = super()._open_all(state, response)
        return ({}, errors, True) if errors else (found, errors, unnamed)


class OneNonce(Sotw):
    """One for all types."""

    def _take(self, response: Response, now: float) -> Taken:
        taken = super()._take(response, now)
        self._nonces = dict.fromkeys(self._nonces, response.nonce)
        return taken


class AnswersTwice(Sotw):
    """The last response is acknowledged once more after a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Send] = {}

    def handle(self, event: Event) -> list[Command]:
        commands = super().handle(event)
        if isinstance(event, Received):
            answer = next(item for item in commands if isinstance(item, Send))
            if old := self.before.get(answer.type_url):
                commands.append(old)
            self.before[answer.type_url] = answer
        return commands


def change_begins_anew(event: Event, request: Any) -> Any:
    if isinstance(event, Received) and request.type_url != event.response.type_url:
        return replace(request, nonce="")
    return request


class AsksForTheNew(Sotw):
    """Only what is new is asked for, as if it were the incremental dialogue."""

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        before = self.held.types[url].names
        commands = super()._subscribe(url, names)
        return [
            replace(item, names=tuple(sorted(set(names) - set(before)))) if isinstance(item, Send) else item
            for item in commands
        ]


class NeverLets(Held):
    """Whatever was asked for once is asked for ever."""

    def wanted(self, parent: str) -> dict[str, float]:
        child = EDS if parent == CDS else RDS
        return dict.fromkeys(self.types[child].names, float("inf")) | super().wanted(parent)


class BeginsWithNothing(Sotw):
    """Every type is asked for at once, with names or without."""

    def _begin(self) -> list[Command]:
        return [self._request(url, first=number == 0) for number, url in enumerate(ORDER)]


class ForgetsTheUnsaid(Held):
    """Endpoints that a response does not repeat are gone."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        return super().take(response, whole=True, now=now)

    def config(self) -> Config:
        config, names = super().config(), self.types[EDS].names
        none = {name: Assignment(name, ()) for name in names if self.types[EDS].arrived}
        return replace(config, assignments={**none, **config.assignments})


def no_word_about_nothing(event: Event, request: Any) -> Any:
    if answers(event, request) and request.type_url in (EDS, RDS) and not event.response.resources:  # type: ignore[union-attr]
        return None
    return request


class NeverEmpty(Held):
    """An assignment without endpoints is taken for none at all."""

    def __init__(self) -> None:
        super().__init__()
        self.full: dict[str, Any] = {}

    def config(self) -> Config:
        config = super().config()
        self.full |= {name: item for name, item in config.assignments.items() if item.localities}
        return replace(config, assignments={**config.assignments, **self.full})


class TakesAnything(Held):
    """What nobody asked for is kept, and asked for from now on."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        state = self.types[response.type_url]
        if state.names:
            found, _, _ = self._open_all(state, response)
            state.names = tuple(sorted({*state.names, *found}))
        return super().take(response, whole=whole, now=now)


class LastOfTwo(Held):
    """Of two resources of one name the last one is taken."""

    def _open_all(self, state: HeldType, response: Response) -> Any:
        once = tuple({raw.value: raw for raw in response.resources}.values())
        return super()._open_all(state, replace(response, resources=once))


def ends_at_the_unknown(dialogue: Any, event: Event, commands: list[Command]) -> list[Command]:
    if isinstance(event, Received) and event.response.type_url not in dialogue.held.types:
        raise InvalidInput(f"unknown type {event.response.type_url}")
    return commands


class AnyType(Held):
    """A resource is taken for what its response says."""

    def _open_all(self, state: HeldType, response: Response) -> Any:
        cast = tuple(
            RawResource(response.type_url, raw.value, raw.name, raw.version) for raw in response.resources
        )
        return super()._open_all(state, replace(response, resources=cast))


SOTW_MUTANTS: dict[str, Parts] = {
    "C01": each(lambda _, request: replace(request, first=False)),
    "C02": each(ack_without_version),
    "C03": nack_with_its_version(first=True),
    "C04": nack_with_its_version(first=False),
    "C05": holding(NeverForgives),
    "C06": holding(AllOrNothing),
    "C07": each(lambda _, request: replace(request, error="bad" if request.error else "")),
    "C08": speaking(OneNonce),
    "C09": speaking(AnswersTwice),
    "C10": each(change_begins_anew),
    "C11": speaking(AsksForTheNew),
    "C12": holding(NeverLets),
    "C13": speaking(BeginsWithNothing),
    "C14": taking(lambda _, __: False),
    "C15": holding(ForgetsTheUnsaid),
    "C16": taking(lambda response, whole: whole and bool(response.resources)),
    "C17": each(no_word_about_nothing),
    "C18": holding(NeverEmpty),
    "C19": holding(TakesAnything),
    "C20": holding(LastOfTwo),
    "C21": saying(ends_at_the_unknown),
    "C22": holding(AnyType),
}
