"""What is in force, whichever dialogue brought it.  Pure.

Of a response with bad resources the good ones are applied, of the bad ones the last good version is kept,
and the answer is a NACK that names each (gRPC proposal A46).  Istiod sends most things again and again:
bytes are compared before they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Command, Config, Rejected, Withheld
from appswitch.xds.decode import decode_resource, peek_name, resource_name
from appswitch.xds.resources import (
    CDS,
    EDS,
    LDS,
    NDS,
    ORDER,
    RDS,
    SHORT,
    Assignment,
    Cluster,
    Listener,
    NameTable,
    RawResource,
    Refusal,
    Resource,
    Response,
    RouteConfig,
)
from appswitch.xds.timers import Timers

MAX_ERROR = 2000
"""Characters of a NACK's error_detail."""

WILDCARD = frozenset({CDS, LDS, NDS})
"""Types of which everything is asked for; of the others what these name."""
NOT_FOUND, PERMISSION_DENIED = 5, 7
ABSENT = frozenset({NOT_FOUND, PERMISSION_DENIED})
"""Of google.rpc.Code.  Any other is the server's trouble: what is there stays."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What was last sent of a resource, and not taken."""

    version: str
    """Of the response."""
    reason: str
    at: float


@dataclass(slots=True)
class HeldType:
    """What is in force of one resource type, and what was asked for."""

    version: str = ""
    """Of the last response that was good throughout."""
    names: tuple[str, ...] = ()
    """Subscribed to, sorted; of a wildcard type empty."""
    arrived: bool = False
    """A response was ever accepted, at least in part."""
    resources: dict[str, Resource] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    """Of the bytes of each resource in force."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of each resource in force, where the server says one."""
    errors: tuple[tuple[str, str], ...] = ()
    """What was wrong with the last response."""
    withheld: dict[str, Refusal] = field(default_factory=dict)
    """Why the server does not send what was asked for, until it does."""
    timers: Timers = field(default_factory=Timers)
    removed: set[str] = field(default_factory=set)
    """Asked for by name, and the server said that it is no more."""
    since: dict[str, float] = field(default_factory=dict)
    """When each resource in force became what it is."""
    brought: dict[str, str] = field(default_factory=dict)
    """Version of the last good response that each resource in force was in."""
    rejected: dict[str, Rejection] = field(default_factory=dict)
    """Until a good one comes, or the resource goes."""

    def absent(self) -> list[str]:
        """What was asked for, and the server says is not there, or not for us."""
        return [name for name, refusal in self.withheld.items() if refusal.code in ABSENT]

    def drop(self, name: str) -> bool:
        """Whether it was there."""
        self.digests.pop(name, None)
        self.versions.pop(name, None)
        self.timers.forget(name)
        self.since.pop(name, None)
        self.brought.pop(name, None)
        self.rejected.pop(name, None)
        return self.resources.pop(name, None) is not None


@dataclass(slots=True)
class _Found:
    """One resource of a response that is good."""

    digest: bytes
    version: str
    resource: Resource | None
    """None: the one in force."""
    ttl: float | None = None
    """Seconds that it lives; None: for ever."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a response came to."""

    changed: bool
    """Something else is in force now."""
    error: str
    """Of the NACK; empty: all was good."""
    told: tuple[Command, ...]
    """News about it."""


def _is_heartbeat(raw: RawResource) -> bool:
    """A wrapper without body: the resource of this name is as it was."""
    return not raw.type_url and not raw.value


class Held:
    """Everything accepted so far, whichever dialogue brought it."""

    def __init__(self, decode: Callable[[str, bytes], Resource] = decode_resource) -> None:
        """`decode` raises InvalidInput for a bad resource."""
        self._decode = decode
        self.types = {url: HeldType() for url in ORDER}

    def config(self) -> Config:
        """What translation sees of it: what the server refuses to send has nothing behind it."""
        held = {url: state.resources for url, state in self.types.items()}
        absent = {url: self.types[url].absent() for url in (EDS, RDS)}
        return Config(
            cast("dict[str, Cluster]", dict(held[CDS])),
            cast("dict[str, Assignment]", held[EDS] | {name: Assignment(name, ()) for name in absent[EDS]}),
            cast("dict[str, Listener]", dict(held[LDS])),
            cast("dict[str, RouteConfig]", held[RDS] | {name: RouteConfig(name, ()) for name in absent[RDS]}),
            cast("NameTable | None", held[NDS].get("")),
            tuple((SHORT[url], state.version) for url, state in self.types.items()),
            self._awaited(),
        )

    def _awaited(self) -> tuple[str, ...]:
        awaited = [SHORT[url] for url in (CDS, LDS) if not self.types[url].arrived]
        for url in (EDS, RDS):
            state = self.types[url]
            awaited += [
                name for name in state.names if name not in state.resources and name not in state.withheld
            ]
        return tuple(awaited)

    def wanted(self, parent: str) -> dict[str, float]:
        """Names of the children that the resources of `parent` refer to, and each one's patience in seconds.

        Where several refer to one, the longest.
        """
        names: dict[str, float] = {}
        for resource in self.types[parent].resources.values():
            if isinstance(resource, Cluster) and resource.eds_name:
                seconds = resource.fetch_timeout
                names[resource.eds_name] = max(seconds, names.get(resource.eds_name, seconds))
            elif isinstance(resource, Listener):
                for target in resource.route_configs:
                    seconds = target.fetch_timeout
                    names[target.route_config] = max(seconds, names.get(target.route_config, seconds))
        return names

    def subscribe(self, url: str, names: tuple[str, ...]) -> None:
        """From now on these are asked for; of the others nothing stays."""
        state = self.types[url]
        for name in set(state.names) - set(names):
            state.drop(name)
            state.withheld.pop(name, None)
            state.removed.discard(name)
        state.names = names

    def expect(self, url: str, patience: Mapping[str, float], now: float) -> None:
        """These were asked for; those of which nothing is known are waited for, so many seconds each."""
        state = self.types[url]
        missing = patience.keys() - state.resources.keys() - state.withheld.keys()
        state.timers.wait({name: patience[name] for name in missing}, now)

    def disconnected(self) -> None:
        """Nothing can come; what lives for a time only grows older."""
        for state in self.types.values():
            state.timers.disconnected()

    def due(self) -> float | None:
        """When something is over next."""
        times = (state.timers.due() for state in self.types.values())
        return min((at for at in times if at is not None), default=None)

    def elapsed(self, now: float) -> tuple[Withheld, ...]:
        """What is over by now; it is out of force, and what was asked for by name does not exist."""
        told = []
        for url, state in self.types.items():
            if late := state.timers.over(now):
                told.append(Withheld(url, tuple(sorted(late.items()))))
                for name, reason in late.items():
                    state.drop(name)
                    if url not in WILDCARD:
                        state.withheld[name] = Refusal(name, NOT_FOUND, reason)
        return tuple(told)

    def take(self, response: Response, *, whole: bool, now: float = 0.0) -> Taken:
        """Take over what is new and good.  `whole`: what is not in the response is no more."""
        state = self.types[response.type_url]
        found, errors, unnamed = self._open_all(state, response)
        beats = _heartbeats(state, response)
        # An unreadable name may be that of anything known: then nothing is taken for absent.
        gone = set(response.removed) - set(errors)
        # Heartbeats alone say nothing of what they do not name.
        if whole and not unnamed and (found or errors or not response.resources):
            gone |= {*state.resources, *state.rejected} - set(found) - set(errors) - set(beats)
        gone |= {refusal.name for refusal in response.refusals if refusal.code in ABSENT}
        state.arrived = state.arrived or bool(found) or not errors
        if response.type_url not in WILDCARD:  # what nobody asked for is ignored
            asked = frozenset(state.names)
            found = {name: item for name, item in found.items() if name in asked}
            state.removed = (state.removed | asked.intersection(response.removed)) - found.keys()
        changed = self._replace(state, found, gone, now)
        for name, ttl in (beats | {name: item.ttl for name, item in found.items()}).items():
            state.timers.live(name, ttl, now)
        self._remember(state, response, found, {n: why for n, why in errors.items() if n not in unnamed}, now)
        heard = self._hear(state, response.type_url in WILDCARD, response, found)
        state.timers.came((*found, *errors, *state.withheld))
        told: list[Command] = [Withheld(response.type_url, heard)] if heard else []
        listed = tuple(sorted(errors.items()))
        if not errors:
            state.version = response.version
        elif listed != state.errors:
            told.append(Rejected(response.type_url, response.version, listed))
        state.errors = listed
        text = "; ".join(f"{name}: {reason}" for name, reason in listed)
        return Taken(changed or bool(heard), text[:MAX_ERROR], tuple(told))

    def _open_all(
        self, state: HeldType, response: Response
    ) -> tuple[dict[str, _Found], dict[str, str], set[str]]:
        """The good, the reasons of the bad, and which of the bad have no name of their own."""
        found: dict[str, _Found] = {}
        errors: dict[str, str] = {}
        unnamed: set[str] = set()
        removed = frozenset(response.removed)
        for number, raw in enumerate(response.resources):
            if _is_heartbeat(raw):
                continue
            digest = blake2b(raw.value, digest_size=16).digest()
            name = peek_name(raw.value)
            try:
                if raw.type_url != response.type_url:
                    raise InvalidInput(f"{name}: its type is {raw.type_url!r}, not the response's")
                resource = None
                if state.digests.get(name) != digest:
                    resource = self._decode(raw.type_url, raw.value)
                    name = resource_name(resource)
                    if raw.name not in ("", name):
                        raise InvalidInput(f"{name}: it was sent as {raw.name!r}")
            except InvalidInput as error:
                name = raw.name or name
                if not name:
                    name = f"resource {number} of {len(response.resources)}"
                    unnamed.add(name)
                errors[name] = str(error).removeprefix(f"{name}: ").removeprefix(": ")
                continue
            if name in found:
                errors[name] = "it stands twice in one response"
            elif name in removed:
                errors[name] = "it is sent and removed in one response"
            found[name] = _Found(digest, raw.version, resource, raw.ttl)
        for name in errors:
            found.pop(name, None)
        return found, errors, unnamed

    @staticmethod
    def _replace(state: HeldType, found: dict[str, _Found], gone: set[str], now: float) -> bool:
        """Put what was found in force; what is gone goes.  Whether anything changed."""
        changed = False
        for name, item in found.items():
            state.withheld.pop(name, None)
            state.versions[name] = item.version
            if item.resource is None:
                continue
            state.digests[name] = item.digest
            # Maps are encoded in any order: other bytes may mean the same, and then the old object stays.
            if state.resources.get(name) != item.resource:
                state.resources[name] = item.resource
                state.since[name] = now
                changed = True
        for name in gone:
            changed = state.drop(name) or changed
        return changed

    @staticmethod
    def _remember(
        state: HeldType, response: Response, found: dict[str, _Found], errors: dict[str, str], now: float
    ) -> None:
        """What `status.py` tells."""
        for name in found:
            state.brought[name] = response.version
            state.rejected.pop(name, None)
        for name, reason in errors.items():
            if response.type_url in WILDCARD or name in state.names:
                state.rejected[name] = Rejection(response.version, reason, now)

    @staticmethod
    def _hear(
        state: HeldType, wildcard: bool, response: Response, found: dict[str, _Found]
    ) -> tuple[tuple[str, str], ...]:
        """What is new of what the server says it does not send: (resource, reason).

        Kept for what was asked for by name; of a wildcard type, where a server may name anything, of the
        last response.
        """
        before = state.withheld
        fresh = {refusal.name: refusal for refusal in response.refusals if refusal.name not in found}
        if wildcard:
            state.withheld = fresh
        else:
            asked = {name: refusal for name, refusal in fresh.items() if name in state.names}
            state.withheld = before | asked
            for name in response.removed:
                state.withheld.pop(name, None)
        return tuple(
            (name, refusal.reason)
            for name, refusal in sorted(state.withheld.items())
            if before.get(name) != refusal
        )


def _heartbeats(state: HeldType, response: Response) -> dict[str, float | None]:
    """What is sent without body, and known in that version, is alive: name to its new time to live."""
    return {
        raw.name: raw.ttl
        for raw in response.resources
        if not raw.type_url
        and not raw.value
        and raw.name in state.resources
        and raw.version == state.versions.get(raw.name)
    }
