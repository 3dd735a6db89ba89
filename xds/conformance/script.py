"""A case is a description: what the server does, what must be seen, what the probe must say.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from appswitch.xds.conformance.transcript import Mode, Transcript
from appswitch.xds.resources import RawResource, Refusal

SETTLE = 0.4
"""Seconds in which a client that would do something wrong does it."""


class Fault(Exception):
    """The client did what it must not do, or never did what it must."""


class Inapplicable(Exception):
    """The client cannot be judged on this case; why."""


Check = Callable[[Transcript], str]
"""What has not been seen yet; empty: all has.  Raises Fault where it is too late, and Inapplicable."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the client.  The server answers what is asked for, but for the types on `hold`."""

    hold: tuple[str, ...] = ()
    refuse: int = 0
    """So many streams are ended at once, before any response."""
    status: str = "UNAVAILABLE"
    """With this gRPC status."""
    words: str = "the script says so"
    listening: bool = True
    """False: nobody listens on the port yet."""


@dataclass(frozen=True, slots=True)
class Push:
    """Send a response on the stream, which has asked for its type; it is the truth from now on."""

    url: str
    version: str
    resources: tuple[RawResource, ...] = ()
    removed: tuple[str, ...] = ()
    """Delta alone."""
    refusals: tuple[Refusal, ...] = ()
    """resource_errors."""
    ttl: int = 0
    """Seconds, of each resource; 0: for ever."""
    wrapped: bool = False
    """State of the world: each in an envoy.service.discovery.v3.Resource."""
    unasked: bool = False
    """Do not wait until the client has asked for the type."""
    extra: bytes = b""
    """Bytes at the end of the response: fields that no client knows."""
    later: bool = False
    """Do not send it: it is what the server has from now on."""


@dataclass(frozen=True, slots=True)
class Hold:
    """From now on the server answers by itself but for these types."""

    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class See:
    """Wait until `check` has seen what must be seen on the wire."""

    what: str
    check: Check
    after: float = 0.0
    """Seconds to let pass first: for what must not be seen."""
    within: float | None = None
    """Seconds at most; None: the run's patience."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the probe until it says one of these; skipped where there is no probe."""

    target: str
    """VIP:port."""
    allowed: tuple[frozenset[str], ...]
    keeps: bool = False
    """It must say so now and after a while: nothing may change."""


@dataclass(frozen=True, slots=True)
class Watch:
    """From now on ask the probe again and again about this target."""

    target: str


@dataclass(frozen=True, slots=True)
class Unbroken:
    """Never since `Watch` was there no endpoint."""


@dataclass(frozen=True, slots=True)
class End:
    """End the stream."""

    status: str = "OK"
    words: str = ""
    refuse: int = 0
    """End so many more, before any response."""


@dataclass(frozen=True, slots=True)
class Outage:
    """End the stream and listen no more; with `seconds` the port is back after them."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Back:
    """Listen (again)."""


@dataclass(frozen=True, slots=True)
class Logs:
    """The client's output must contain this."""

    words: str


Step = Start | Push | Hold | See | Probe | Watch | Unbroken | End | Outage | Back | Logs


@dataclass(frozen=True, slots=True)
class Script:
    """One play with a client that is started for it."""

    mode: Mode
    mesh: tuple[RawResource, ...]
    """What the server has at the start, all in version 1."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    id: str
    title: str
    scripts: tuple[Script, ...] = ()
    """Each must go well."""
    needs_probe: bool = False
    """Nothing of it is on the wire."""
    reason: str = ""
    """Why no client can be judged on it from outside."""
    source: str = field(default="", kw_only=True)
    """Who asks for it."""


def sotw(mesh: tuple[RawResource, ...], *steps: Step | tuple[Step, ...]) -> Script:
    """A script in the state of the world."""
    return Script(Mode.SOTW, mesh, _flat(steps))


def delta(mesh: tuple[RawResource, ...], *steps: Step | tuple[Step, ...]) -> Script:
    """A script in the incremental dialogue."""
    return Script(Mode.DELTA, mesh, _flat(steps))


def _flat(steps: tuple[Step | tuple[Step, ...], ...]) -> tuple[Step, ...]:
    flat: list[Step] = []
    for step in steps:
        flat += step if isinstance(step, tuple) else (step,)
    return tuple(flat)


def push(url: str, version: str, *resources: RawResource) -> Push:
    """The common kind."""
    return Push(url, version, resources)


def says(target: str, *endpoints: str) -> Probe:
    """The probe comes to say exactly these."""
    return Probe(target, (frozenset(endpoints),))


def keeps(target: str, *endpoints: str) -> Probe:
    """The probe says exactly these and goes on to."""
    return Probe(target, (frozenset(endpoints),), keeps=True)
