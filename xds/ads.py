"""The vocabulary of both ADS dialogues: events in, commands out, and the configuration.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appswitch.xds.resources import Assignment, Cluster, Listener, NameTable, Response, RouteConfig


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream is open and nothing has been sent on it."""

    now: float = 0.0
    """When: seconds of a clock that never jumps."""


@dataclass(frozen=True, slots=True)
class Received:
    """A response came, its resources still bytes."""

    response: Response
    now: float = 0.0
    """When: seconds of a clock that never jumps."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream is gone; what was received stays in force."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The instant that `Held.due` named has come."""

    now: float


Event = Connected | Received | Disconnected | Elapsed


@dataclass(frozen=True, slots=True)
class Send:
    """Send a DiscoveryRequest (state of the world)."""

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
class SendDelta:
    """Send a DeltaDiscoveryRequest: a subscription, or the answer to a response (`nonce`), never both."""

    type_url: str
    nonce: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    """What is in force, by name, in the first request of a type on a stream."""
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


@dataclass(frozen=True, slots=True)
class Withheld:
    """Resources are not there: the server says why (said once until it changes), or their time is over."""

    type_url: str
    errors: tuple[tuple[str, str], ...]
    """(resource, reason)."""


Command = Send | SendDelta | Publish | Rejected | Ignored | Withheld
