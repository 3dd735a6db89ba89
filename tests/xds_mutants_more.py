"""A client with one fault for each case from C23 on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc.aio
from xds_faults import each, holding, saying, speaking, taking

from appswitch.errors import InvalidInput, Unavailable
from appswitch.xds.ads import Command, Config, Connected, Disconnected, Event, Received, SendDelta
from appswitch.xds.conformance.meshes import UNKNOWN_FIELD, UNKNOWN_FILTER
from appswitch.xds.conformance.own import Applied, Own, Parts, applied
from appswitch.xds.decode import decode_resource
from appswitch.xds.delta import Delta
from appswitch.xds.held import Held, HeldType, Taken
from appswitch.xds.resources import CDS, EDS, LDS, Assignment, RawResource, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator
from appswitch.xds.transport import Transport

# -- what is put in force


def ends_at_extensions(_: Any, event: Event, commands: list[Command]) -> list[Command]:
    if isinstance(event, Received):
        for raw in event.response.resources:
            if UNKNOWN_FILTER.encode() in raw.value:
                raise InvalidInput(f"unknown extension {UNKNOWN_FILTER}")
    return commands


class TakesTruncated(Held):
    """What cannot be decoded is passed over."""

    def _open_all(self, state: HeldType, response: Response) -> Any:
        found, _, unnamed = super()._open_all(state, response)
        return found, {}, unnamed or len(found) < len(response.resources)


class WaitsForEver(Held):
    """What was asked for may come one day."""

    def due(self) -> float | None:
        return None


class NeverLate(Held):
    """What has not come when the next response is there is never taken."""

    def __init__(self) -> None:
        super().__init__()
        self.late: set[str] = set()

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        eds = self.types[EDS]
        if response.type_url == LDS:
            self.late |= set(eds.names) - set(eds.resources)
        good = tuple(raw for raw in response.resources if _name(raw) not in self.late)
        return super().take(replace(response, resources=good), whole=whole, now=now)


def _name(raw: RawResource) -> str:
    return raw.name or (getattr(decode_resource(raw.type_url, raw.value), "name", "") if raw.value else "")


class DoesNotWait(Held):
    """A cluster whose endpoints have not come has none."""

    def config(self) -> Config:
        config = super().config()
        none = {name: Assignment(name, ()) for name in self.types[EDS].names}
        return replace(config, assignments={**none, **config.assignments})


class BreaksBeforeMake(Translator):
    """Nothing of the last configuration is kept while the next one is not complete."""

    def translate(self, config: Config) -> Translation:
        return Translator().translate(config)


class NeverRecovers(Held):
    """A cluster that did not exist when a route named it never does."""

    def __init__(self) -> None:
        super().__init__()
        self.ghosts: set[str] = set()

    def config(self) -> Config:
        config = super().config()
        named = {
            part.cluster
            for routes in config.routes.values()
            for host in routes.hosts
            for route in host.routes
            for part in route.clusters
        }
        self.ghosts |= named - set(config.clusters)
        there = {name: item for name, item in config.clusters.items() if name not in self.ghosts}
        return replace(config, clusters=there)


class HalfWay(Own):
    """What changes is taken away first, and there again a little later."""

    async def publish(self, config: Config) -> None:
        now = applied(self.translator.translate(config))
        before: Applied = getattr(self, "before", {})
        self.put({target: found for target, found in now.items() if before.get(target) == found})
        await asyncio.sleep(0.3)
        self.before = now
        self.put(now)


class Later(Own):
    """The push is acknowledged, and put in force a little later."""

    async def publish(self, config: Config) -> None:
        now = applied(self.translator.translate(config))
        asyncio.get_running_loop().call_later(0.5, self.put, now)


class AnyErrorRemoves(Held):
    """Whatever the server says about a resource, it is gone."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        gone = tuple(replace(refusal, code=5) for refusal in response.refusals)
        return super().take(replace(response, refusals=gone), whole=whole, now=now)


# -- the incremental dialogue


def begins_with_versions(event: Event, request: Any) -> Any:
    if isinstance(request, SendDelta) and isinstance(event, Connected):
        return replace(request, versions=(("a", "1"),))
    return request


class RejectsUnknownRemovals(Held):
    """To remove what is not there is a fault."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        unknown = set(response.removed) - set(self.types[response.type_url].resources)
        taken = super().take(response, whole=whole, now=now)
        return replace(taken, error=f"unknown: {unknown}") if unknown else taken


class SaysAll(Delta):
    """A change of subscription says every name again."""

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        return [
            replace(item, subscribe=names) if isinstance(item, SendDelta) else item
            for item in super()._subscribe(url, names)
        ]


class NeverAgain(Delta):
    """What was unsubscribed from is not subscribed to again."""

    def __init__(self) -> None:
        super().__init__()
        self.left: set[str] = set()

    def handle(self, event: Event) -> list[Command]:
        commands = []
        for item in super().handle(event):
            if isinstance(item, SendDelta):
                self.left |= set(item.unsubscribe)
                item = replace(
                    item, subscribe=tuple(name for name in item.subscribe if name not in self.left)
                )
            commands.append(item)
        return commands


class LastVersionSeen(Held):
    """The version of a resource is that of the last one sent, good or bad."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        taken = super().take(response, whole=whole, now=now)
        state = self.types[response.type_url]
        state.versions |= {raw.name: raw.version for raw in response.resources if raw.name in state.resources}
        return taken


class ForgetsRemovals(Delta):
    """On a new stream the server is thought to tell only what there is."""

    streams = 0

    def handle(self, event: Event) -> list[Command]:
        self.streams += isinstance(event, Connected)
        if isinstance(event, Received) and self.streams > 1:
            event = replace(event, response=replace(event.response, removed=()))
        return super().handle(event)


# -- streams


class KeepsNonces(Sotw):
    """The nonces of the last stream are said on the next."""

    def _forget(self) -> None:
        pass


def pausing(seconds: float) -> Parts:
    async def sleep(_: float) -> None:
        await asyncio.sleep(seconds * random.uniform(0.9, 1.0))

    return Parts(sleep=sleep)


def forgets_in_an_outage(dialogue: Any, event: Event, commands: list[Command]) -> list[Command]:
    if isinstance(event, Disconnected):
        dialogue.held.types = {url: HeldType() for url in dialogue.held.types}
    return commands


async def _give_up(_: float) -> None:
    raise Unavailable("nobody there: giving up")


class Taciturn(Own):
    """A stream that ends is no news."""

    def disconnected(self, reason: str, delay: float) -> None:
        self.say("disconnected")


# -- odd and large responses


class LivesForEver(Held):
    """A time to live means nothing."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        immortal = tuple(replace(raw, ttl=None) for raw in response.resources)
        return super().take(replace(response, resources=immortal), whole=whole, now=now)


class HeartbeatsRemove(Held):
    """A resource without body is no resource."""

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        empty = tuple(raw.name for raw in response.resources if not raw.type_url)
        return super().take(replace(response, removed=(*response.removed, *empty)), whole=whole, now=now)


class NoWrapper(Sotw):
    """A wrapper is a resource of another type."""

    def handle(self, event: Event) -> list[Command]:
        if isinstance(event, Received):
            wrapped = tuple(
                replace(raw, type_url="type.googleapis.com/envoy.service.discovery.v3.Resource", name="")
                if raw.name
                else raw
                for raw in event.response.resources
            )
            event = replace(event, response=replace(event.response, resources=wrapped))
        return super().handle(event)


class CutsNames(Held):
    """A name ends at its parameters."""

    def wanted(self, parent: str) -> dict[str, float]:
        return {name.partition("?")[0]: seconds for name, seconds in super().wanted(parent).items()}


class DefaultLimit(Transport):
    """gRPC's own limit of a message's length."""

    def channel(self, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        return super().channel([item for item in options if item[0] != "grpc.max_receive_message_length"])


def rejects_once() -> Parts:
    class Once(Sotw):
        said = ""

        def handle(self, event: Event) -> list[Command]:
            commands = []
            for item in super().handle(event):
                error = getattr(item, "error", "")
                if not error or error != self.said:
                    commands.append(item)
                self.said = error or self.said
            return commands

    return speaking(Once)


def ends_at_the_unasked(dialogue: Any, event: Event, commands: list[Command]) -> list[Command]:
    if isinstance(event, Received) and event.response.type_url == EDS and not dialogue.held.types[EDS].names:
        raise InvalidInput("endpoints that nobody asked for")
    return commands


class RejectsUnknownFields(Held):
    """A field that it does not know is a fault."""

    def __init__(self) -> None:
        super().__init__(self._strict)

    @staticmethod
    def _strict(url: str, value: bytes) -> Any:
        if value.endswith(UNKNOWN_FIELD):
            raise InvalidInput("unknown field")
        return decode_resource(url, value)


MORE_MUTANTS: dict[str, Parts] = {
    "C23": saying(ends_at_extensions),
    "C24": holding(TakesTruncated),
    "C25": holding(WaitsForEver),
    "C26": holding(NeverLate),
    "C27": holding(DoesNotWait),
    "C28": Parts(translator=BreaksBeforeMake),
    "C29": Parts(translator=BreaksBeforeMake),
    "C30": holding(NeverRecovers),
    "C31": Parts(listener=HalfWay),
    "C32": each(begins_with_versions),
    "C33": taking(lambda response, whole: response.type_url == CDS or whole),
    "C34": holding(RejectsUnknownRemovals),
    "C35": speaking(delta=SaysAll),
    "C36": speaking(delta=NeverAgain),
    "C37": holding(LastVersionSeen),
    "C38": speaking(delta=ForgetsRemovals),
    "C40": speaking(KeepsNonces),
    "C41": pausing(10.0),
    "C42": pausing(0.1),
    "C43": saying(forgets_in_an_outage),
    "C44": Parts(sleep=_give_up),
    "C45": holding(LivesForEver),
    "C46": holding(HeartbeatsRemove),
    "C47": speaking(NoWrapper),
    "C48": holding(AnyErrorRemoves),
    "C49": holding(CutsNames),
    "C50": Parts(transport=DefaultLimit),
    "C51": Parts(listener=Later),
    "C52": rejects_once(),
    "C53": saying(ends_at_the_unasked),
    "C54": holding(RejectsUnknownFields),
    "C57": Parts(listener=Taciturn),
}
