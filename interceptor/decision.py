"""The decision: what an app gets for a destination, and why.  Pure; the reference for every driver.

`route` is the part that depends on policy alone: `rows.py` compiles it into the kernel's tables.
`decide` adds who listens now, as the programs see it at connect().  Order: loopback, link-local,
vservice or service at exactly this port (a real port of the node counts as the service behind it),
apps that have the address, outside.  Backends that are no apps and failed within the last second are
avoided as long as another is there; which those are is an input too (`Ages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from errno import EACCES, ECONNREFUSED, errorcode
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from appswitch.interceptor.index import (
    DNS_PORT,
    ELSEWHERE,
    LOOPBACK_IP,
    Index,
    Key,
    Rule,
    Target,
    effective_weights,
)
from appswitch.interceptor.targets import NO_ADDRESS, NO_LABEL
from appswitch.model import App, Class, Destination, LbPolicy, Protocol, Snapshot

LINK_LOCAL: Final = IPv4Network("169.254.0.0/16")
AVOID: Final = 1.0
"""Seconds for which a backend that failed is left out (bpf/decide.h: AVOID_NANOSECONDS)."""

Ages = Mapping[tuple[int, int], float]
"""By (IPv4 address as a number, port): seconds since the last dial there failed."""
NOTHING_FAILED: Final[Ages] = {}


class Kind(Enum):
    """What happens to the connect()."""

    BALANCE = "balance"
    """It goes to one of the candidates that are eligible and live."""
    REFUSE = "refuse"
    """It fails with `error`."""
    DIRECT = "direct"
    """It goes where it was asked to, from the node."""
    WAIT = "wait"
    """It waits for somebody to listen, `wait` seconds at most, and fails with `error` then."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One backend that was considered."""

    app: int
    """AppId; 0: an address outside."""
    address: IPv4Address
    port: int
    weight: int
    """Its part of the connections, relative to the other eligible ones'."""
    barred: str
    """Why policy does not let this client reach it; empty: it does."""
    live: bool = True
    """Somebody listens there; of an address outside nothing is known, so it counts as live."""
    failed: float | None = None
    """Seconds since the last dial to it failed; None: the last one did not, or it is an app."""
    avoided: bool = False
    """It failed within AVOID seconds, and others are there."""

    @property
    def eligible(self) -> bool:
        """Policy lets this client reach it."""
        return not self.barred

    @property
    def picked(self) -> bool:
        """Whether a connection may go there now."""
        return self.eligible and self.live and self.weight > 0 and not self.avoided


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a client gets for a destination."""

    kind: Kind
    why: str
    rule: Rule
    error: int = 0
    """REFUSE, WAIT: positive errno.  BALANCE from `route`: what it is if nobody is live; 0: DIRECT then."""
    service: str = ""
    """Name of the vservice, or the address that apps have in common."""
    policy: LbPolicy = LbPolicy.RANDOM
    candidates: tuple[Candidate, ...] = ()
    source_ip: IPv4Address | None = None
    wait: float = 0.0
    """WAIT: seconds.  BALANCE: so long a refusal by the only backend, an address outside, is not heard."""

    @property
    def picks(self) -> tuple[Candidate, ...]:
        """Where the connection may go now."""
        return tuple(c for c in self.candidates if c.picked)


def route(index: Index, client: App | Class, key: Key) -> Verdict | None:
    """What policy says about a key, whoever listens; None: the key is in no table.

    A guarded key bars an app whose address is not known; of a bare `Class` it need not be.
    """
    target = index.target(key)
    if target is None:
        return None
    address = str(IPv4Address(key.address))
    return _route(target, client, target.name or (f"{address}:{key.port}" if key.port else address))


def decide(
    state: Snapshot | Index, client: App | Class, destination: Destination, ages: Ages = NOTHING_FAILED
) -> Verdict:
    """What a client gets for a destination now.

    A bare `Class` has no loopback of its own: everything there is refused.
    """
    index = state if isinstance(state, Index) else Index.of(state)
    address, port, protocol = destination.address, destination.port, destination.protocol
    pod = isinstance(client, App) and client.own_ip is not None
    if pod and (address.is_loopback or not int(address) or address in LINK_LOCAL):
        rule = Rule.LINK_LOCAL if address in LINK_LOCAL else Rule.LOOPBACK
        return Verdict(Kind.DIRECT, "the pod's own network has its own", rule)
    app_class = client.app_class if isinstance(client, App) else client
    if address.is_loopback or not int(address):  # connect(0.0.0.0) means this host
        return _loopback(index, client, destination)
    if address in LINK_LOCAL:
        if nameserver := _nameserver(index, app_class, destination):
            return nameserver
        return Verdict(Kind.REFUSE, "link-local addresses are refused", Rule.LINK_LOCAL, EACCES)
    found = _at(index, client, Key(int(address), port, protocol), port, ages)
    via = ""
    if found is None and (real := index.behind_real_port(int(address), port, protocol)):
        app, service = real
        via = f"{address}:{port} is the real port of {app.ip}:{service.port}: "
        address, port = app.ip, service.port
        found = _at(index, client, Key(int(address), port, protocol), port, ages)
    if found is None or (found.kind is Kind.BALANCE and not found.picks):
        anything = _at(index, client, Key(int(address), 0, protocol), port, ages)
        if anything is not None and not (found is not None and anything.kind is Kind.REFUSE):
            found = anything  # what refuses other ports says nothing of this one, where nobody listens
    if found is None and protocol == Protocol.TCP:
        found = _at(index, client, ELSEWHERE, port, ages)
    if found is None:
        return Verdict(Kind.DIRECT, "nothing of ours: dialled directly from the node", Rule.OUTSIDE)
    if pod and found.rule is Rule.DNS and found.kind is Kind.BALANCE:
        why = "the built-in DNS server is on the node's loopback: a pod asks its own"
        found = replace(found, kind=Kind.REFUSE, why=why, error=ECONNREFUSED)
    if found.kind is Kind.BALANCE:
        found = _settle(found, port)
    if isinstance(client, App) and client.connect_wait and protocol == Protocol.TCP and not pod:
        found = _wait(found, client.connect_wait)
    return replace(found, why=via + found.why) if via else found


def _wait(verdict: Verdict, seconds: float) -> Verdict:
    """The verdict for an app that asked for connect-wait."""
    if verdict.kind is Kind.REFUSE and verdict.error == ECONNREFUSED:
        return replace(verdict, kind=Kind.WAIT, wait=seconds)
    eligible = [c for c in verdict.candidates if c.eligible and c.weight]
    if verdict.kind is Kind.BALANCE and len(eligible) == 1 and not eligible[0].app:
        return replace(verdict, wait=seconds)
    return verdict


def _route(target: Target, who: App | Class, name: str) -> Verdict:
    client = who.app_class if isinstance(who, App) else who
    if isinstance(who, App) and client.address is None and target.guarded:
        refusals = [NO_ADDRESS if m.access else "" for m in target.members]
    else:
        refusals = [m.access.refusal(client) if m.access else "" for m in target.members]
    pairs = list(zip(target.members, refusals, strict=True))
    through = [m for m, refusal in pairs if not refusal and m.weight]
    weights = iter(effective_weights(through))
    candidates = tuple(
        Candidate(
            m.app,
            IPv4Address(m.address),
            m.port,
            next(weights) if not refusal and m.weight else m.weight,
            refusal,
        )
        for m, refusal in pairs
    )
    source = IPv4Address(target.source_ip) if target.source_ip else None
    verdict = Verdict(Kind.BALANCE, "", target.rule, target.dead, name, target.policy, candidates, source)
    if through:
        return verdict
    if any(m.weight for m in target.members):
        reason = next((refusal for refusal in refusals if refusal != NO_LABEL), "")
        why = f"{name}: {reason}" if reason else f"no app behind {name} shares a label with {client.labels}"
        error = target.denied
        if target.rule is Rule.DNS:
            why = "a nameserver of other apps', for which the built-in DNS answers"
    elif target.rule is Rule.REST:
        error, why = target.dead, "the node's own REST is not for apps"
    elif target.rule is Rule.OUTSIDE:
        error, why = target.dead, "not in the mesh's registry, and its outbound policy is REGISTRY_ONLY"
        if not error:
            return replace(verdict, kind=Kind.DIRECT, error=0, why="the mesh's registry leads there itself")
    else:
        error, why = target.dead, f"{name} has no backend"
    if not error:
        return replace(verdict, kind=Kind.DIRECT, error=0, why=f"{why}; the node's own program is dialled")
    return replace(verdict, kind=Kind.REFUSE, error=error, why=why)


def _at(index: Index, client: App | Class, key: Key, port: int, ages: Ages) -> Verdict | None:
    """`route`, with who is live.  `port` is the one asked for, where the key is any port's."""
    verdict = route(index, client, key)
    if verdict is None:
        return None
    known = ages if key.protocol == Protocol.TCP else NOTHING_FAILED
    candidates = tuple(
        replace(
            c,
            port=c.port or port,
            live=not c.app or index.listens(c.app, c.port or port, key.protocol),
            failed=None if c.app else known.get((int(c.address), c.port or port)),
        )
        for c in verdict.candidates
    )
    return replace(verdict, candidates=_avoid_failed(candidates))


def _avoid_failed(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    late = {c for c in candidates if c.picked and c.failed is not None and c.failed < AVOID}
    if all(c in late for c in candidates if c.picked):
        return candidates
    return tuple(replace(c, avoided=True) if c in late else c for c in candidates)


def _settle(verdict: Verdict, port: int) -> Verdict:
    """A verdict that lets the client through, once it is known who is live."""
    picks = len(verdict.picks)
    if picks:
        why = f"{picks} of {len(verdict.candidates)} may be reached, {verdict.policy.value}"
        return replace(verdict, error=0, why=f"{verdict.rule.value} {verdict.service}: {why}")
    why = f"nobody behind {verdict.service} listens on port {port}"
    if verdict.error:
        return replace(verdict, kind=Kind.REFUSE, why=why)
    return replace(verdict, kind=Kind.DIRECT, why=f"{why}; the node's own program is dialled")


def _loopback(index: Index, client: App | Class, destination: Destination) -> Verdict:
    service = None
    if isinstance(client, App):
        service = index.listens_privately(client.id, destination.port, destination.protocol)
    app_class = client.app_class if isinstance(client, App) else client
    if service is None or not isinstance(client, App):
        if nameserver := _nameserver(index, app_class, destination):
            return nameserver
        why = f"loopback is private to each app, and this one does not listen on port {destination.port}"
        return Verdict(Kind.REFUSE, why, Rule.LOOPBACK, ECONNREFUSED)
    address = destination.address if int(destination.address) else IPv4Address(LOOPBACK_IP)
    candidate = Candidate(client.id, address, destination.port, 1, "")
    return Verdict(Kind.BALANCE, "the app's own loopback", Rule.LOOPBACK, candidates=(candidate,))


def _nameserver(index: Index, client: Class, destination: Destination) -> Verdict | None:
    """The built-in DNS, where the destination is one of the app's own nameservers on this host."""
    if destination.port != DNS_PORT:
        return None
    address = int(destination.address) or LOOPBACK_IP
    found = _at(index, client, Key(address, DNS_PORT, destination.protocol), DNS_PORT, NOTHING_FAILED)
    return _settle(found, DNS_PORT) if found is not None and found.kind is Kind.BALANCE else None


def error_name(error: int) -> str:
    """`EACCES` for 13: what the application sees."""
    return errorcode.get(error, str(error))
