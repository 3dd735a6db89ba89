"""The state-of-the-world ADS protocol as a pure state machine: events in, commands out.

What Istiod does and what is asked of a client stands in Envoy's xds_protocol document; the traps:
CDS and LDS answers are complete (absence removes), EDS and RDS answers are partial (absence means
nothing); an empty list of names in EDS or RDS unsubscribes, so the first request is sent only once
there are names; after a reconnect everything is sent again, so bytes are compared before decoding.

Of a response with bad resources the good ones are applied, of the bad ones the last good version is
kept, and the answer is a NACK that names each (gRPC proposal A46).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast

from appswitch.errors import InvalidInput
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
    Resource,
    Response,
    RouteConfig,
)

MAX_ERROR = 2000
"""Characters of a NACK's error_detail."""

_WILDCARD = frozenset({CDS, LDS, NDS})
_CHILD = {CDS: EDS, LDS: RDS}


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream is open and nothing has been sent on it."""


@dataclass(frozen=True, slots=True)
class Received:
    """A response came, its resources still bytes."""

    response: Response


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream is gone; what was received stays in force."""


Event = Connected | Received | Disconnected


@dataclass(frozen=True, slots=True)
class Send:
    """Send a DiscoveryRequest."""

    type_url: str
    version: str = ""
    """The last version accepted, kept over reconnects."""
    nonce: str = ""
    names: tuple[str, ...] = ()
    error: str = ""
    """Not empty: a NACK."""
    first: bool = False
    """First of its stream: it carries the node."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything accepted so far.  The mappings are never changed."""

    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    """By EDS name."""
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    routes: Mapping[str, RouteConfig] = field(default_factory=dict)
    names: NameTable | None = None
    versions: tuple[tuple[str, str], ...] = ()
    """(cds, eds, …; version)."""
    awaited: tuple[str, ...] = ()
    """What was asked for and has never arrived: types and names."""


@dataclass(frozen=True, slots=True)
class Publish:
    """The configuration changed."""

    config: Config


@dataclass(frozen=True, slots=True)
class Rejected:
    """Resources did not decode (said once until it changes)."""

    type_url: str
    version: str
    errors: tuple[tuple[str, str], ...]
    """(resource, reason)."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A response of a type that was never asked for."""

    type_url: str


Command = Send | Publish | Rejected | Ignored


@dataclass(slots=True)
class _Type:
    """One resource type's side of the dialogue."""

    version: str = ""
    nonce: str = ""
    names: tuple[str, ...] = ()
    asked: bool = False
    """A request went out on this stream."""
    arrived: bool = False
    """A response was ever accepted, at least in part."""
    resources: dict[str, Resource] = field(default_factory=dict)
    digests: dict[bytes, str] = field(default_factory=dict)
    """Of the bytes of each resource in force, to its name."""
    errors: tuple[tuple[str, str], ...] = ()


class Ads:
    """One client of one server.  Not for several threads at once."""

    def __init__(self, decode: Callable[[str, bytes], Resource] = decode_resource) -> None:
        """`decode` raises InvalidInput for a bad resource."""
        self._decode = decode
        self._types = {url: _Type() for url in ORDER}

    def handle(self, event: Event) -> list[Command]:
        """What to do now, in this order."""
        match event:
            case Connected():
                return self._connected()
            case Received(response):
                return self._received(response)
            case Disconnected():
                for state in self._types.values():
                    state.nonce, state.asked = "", False
                return []

    def config(self) -> Config:
        """Everything accepted so far."""
        held = {url: state.resources for url, state in self._types.items()}
        return Config(
            cast("dict[str, Cluster]", dict(held[CDS])),
            cast("dict[str, Assignment]", dict(held[EDS])),
            cast("dict[str, Listener]", dict(held[LDS])),
            cast("dict[str, RouteConfig]", dict(held[RDS])),
            cast("NameTable | None", held[NDS].get("")),
            tuple((SHORT[url], state.version) for url, state in self._types.items()),
            self._awaited(),
        )

    def _awaited(self) -> tuple[str, ...]:
        types = [SHORT[url] for url in (CDS, LDS) if not self._types[url].arrived]
        for url in (EDS, RDS):
            state = self._types[url]
            types += [name for name in state.names if name not in state.resources]
        return tuple(types)

    def _connected(self) -> list[Command]:
        commands: list[Command] = []
        for url, state in self._types.items():
            state.nonce, state.asked = "", False
            if url in _WILDCARD or state.names:
                commands.append(self._request(url, first=not commands))
        return commands

    def _request(self, url: str, *, error: str = "", first: bool = False) -> Send:
        state = self._types[url]
        state.asked = True
        return Send(url, state.version, state.nonce, state.names, error, first)

    def _received(self, response: Response) -> list[Command]:
        url = response.type_url
        state = self._types.get(url)
        if state is None:
            return [Ignored(url)]
        state.nonce = response.nonce
        changed, errors = self._apply(url, state, response)
        commands: list[Command] = []
        if errors:
            text = "; ".join(f"{name}: {reason}" for name, reason in errors)
            commands.append(self._request(url, error=text[:MAX_ERROR]))
            if errors != state.errors:
                commands.append(Rejected(url, response.version, errors))
        else:
            state.version = response.version
            commands.append(self._request(url))
        state.errors = errors
        if url in _CHILD:
            commands += self._subscribe(_CHILD[url], self._wanted(url))
        if changed:
            commands.append(Publish(self.config()))
        return commands

    def _apply(self, url: str, state: _Type, response: Response) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Take over what is new and good; whether that changed anything, and the bad with reasons."""
        seen: dict[str, tuple[bytes, Resource | None]] = {}
        errors: dict[str, str] = {}
        unnamed = False
        for number, raw in enumerate(response.resources):
            if not raw.type_url and not raw.value:
                continue  # a heartbeat: a wrapper without body
            digest = blake2b(raw.value, digest_size=16).digest()
            known = state.digests.get(digest) if raw.type_url == url else None
            try:
                resource = None if known is not None else self._open(url, raw.type_url, raw.value)
            except InvalidInput as error:
                name = peek_name(raw.value)
                if not name:
                    name, unnamed = f"resource {number} of {len(response.resources)}", True
                errors[name] = str(error).removeprefix(f"{name}: ").removeprefix(": ")
                continue
            name = known if known is not None else resource_name(cast("Resource", resource))
            if name in seen:
                errors[name] = "it stands twice in one response"
                continue
            seen[name] = digest, resource
        for name in errors:
            seen.pop(name, None)
        # An unreadable name may be that of anything known: then nothing is taken for absent.
        complete = url in _WILDCARD and not unnamed
        changed = self._replace(state, url, seen, frozenset(errors) if complete else None)
        state.arrived = state.arrived or bool(seen) or not errors
        return changed, tuple(sorted(errors.items()))

    def _open(self, url: str, type_url: str, value: bytes) -> Resource:
        if type_url != url:
            raise InvalidInput(f"{peek_name(value)}: its type is {type_url!r}, not the response's")
        return self._decode(type_url, value)

    @staticmethod
    def _replace(
        state: _Type,
        url: str,
        seen: dict[str, tuple[bytes, Resource | None]],
        keep: frozenset[str] | None,
    ) -> bool:
        """Put what was seen in force; what is neither seen nor in `keep` goes (None: nothing goes)."""
        digests = {name: digest for digest, name in state.digests.items()}
        changed = renewed = False
        wanted = None if url in _WILDCARD else frozenset(state.names)
        for name, (digest, resource) in seen.items():
            if resource is None or (wanted is not None and name not in wanted):
                continue
            renewed = renewed or digests.get(name) != digest
            digests[name] = digest
            # Maps are encoded in any order: other bytes may mean the same, and then the old object stays.
            if state.resources.get(name) != resource:
                state.resources[name] = resource
                changed = True
        if keep is not None:
            for name in [name for name in state.resources if name not in seen and name not in keep]:
                del state.resources[name], digests[name]
                changed = True
        if changed or renewed:
            state.digests = {digest: name for name, digest in digests.items()}
        return changed

    def _wanted(self, parent: str) -> tuple[str, ...]:
        """Names of the children that the resources of `parent` refer to."""
        names: set[str] = set()
        for resource in self._types[parent].resources.values():
            if isinstance(resource, Cluster):
                names.add(resource.eds_name)
            elif isinstance(resource, Listener):
                names.update(resource.route_configs)
        return tuple(sorted(names - {""}))

    def _subscribe(self, url: str, names: tuple[str, ...]) -> list[Command]:
        state = self._types[url]
        if names == state.names:
            return []
        state.names = names
        keep = frozenset(names)
        state.resources = {name: value for name, value in state.resources.items() if name in keep}
        state.digests = {digest: name for digest, name in state.digests.items() if name in keep}
        return [self._request(url)] if names or state.asked else []
