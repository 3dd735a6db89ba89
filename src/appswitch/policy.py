"""Who may connect to an app's port: access policies, and what they come to.  Pure.

The words are those of Envoy's RBAC network filter, which Istio's AuthorizationPolicies become, and of the
filter chains that PeerAuthentications become.  Evaluation is exact, also of negations: a peer without
identity matches `not_id: authenticated`.  What cannot be known (the address of a peer that has none, a field
that says something about bytes) is neither true nor false: such a rule denies where it is a DENY, and does
not allow where it is an ALLOW.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

import re2

MAX_PATTERN: Final = 1 << 20
"""Bytes that a compiled expression may take.  RE2 never backtracks: time is linear in the peer's name."""


MAX_PORTS: Final = 1024
"""Ports that one policy may name: each has an entry in the kernel's tables."""
MAX_DEPTH: Final = 64
"""Levels of a condition; protobuf's own limit leaves fewer than 50."""


class ConditionKind(Enum):
    """What a condition looks at."""

    ALL = "all"
    """Every part is true."""
    ANY = "any"
    """Some part is true."""
    NOT = "not"
    """Its only part is not."""
    SOURCE = "source"
    """The peer's address is in `network`."""
    DESTINATION = "destination"
    """The server's own address is in `network`."""
    PORT = "port"
    """The server's own port is in `first`..`last`."""
    PRINCIPAL = "principal"
    """The peer has proven who it is, and its name is matched by `pattern`."""
    UNKNOWN = "unknown"
    """Nothing that connect() can tell; `pattern` says which field it is."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a connection.  Each kind reads its own fields alone."""

    kind: ConditionKind
    parts: tuple[Condition, ...] = ()
    network: IPv4Network | None = None
    first: int = 0
    last: int = 0
    pattern: str = ""
    """An RE2 expression for the whole of the peer's SPIFFE id, e.g. `spiffe://cluster.local/ns/a/sa/b`."""


ALWAYS: Final = Condition(ConditionKind.ALL)
NEVER: Final = Condition(ConditionKind.ANY)


class Action(Enum):
    """What a filter does with a connection that one of its rules matches."""

    ALLOW = "ALLOW"
    """Lets it through; what none matches is refused."""
    DENY = "DENY"
    """Refuses it; what none matches goes on."""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One rule, by the name that Istio gives it: `ns[NAMESPACE]-policy[NAME]-rule[N]`."""

    name: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Rules of one action.  A connection must pass all filters."""

    action: Action
    rules: tuple[AccessRule, ...]


@dataclass(frozen=True, slots=True)
class PortAccess:
    """How a port may be dialled."""

    port: int
    """0: every port that has no entry of its own."""
    plaintext: bool = True
    """Peers without proven identity too (PeerAuthentication PERMISSIVE or DISABLE)."""
    mutual: bool = True
    """Who has an identity may prove it (STRICT or PERMISSIVE)."""
    filters: tuple[AccessFilter, ...] = ()


def is_open(access: PortAccess) -> bool:
    """Whether everybody may dial the port, and nobody needs to say who he is."""
    return access.plaintext and not access.filters


@dataclass(frozen=True, slots=True)
class InboundPolicy:
    """The policy of one workload's servers."""

    addresses: tuple[IPv4Address, ...]
    """The workload's own."""
    trust_domain: str
    """First part of its peers' SPIFFE ids."""
    ports: tuple[PortAccess, ...]
    """At most one for each port.  None for 0: other ports are open to all."""

    @property
    def named_ports(self) -> frozenset[int]:
        """Ports about which it says something of their own."""
        named = {each.port for each in self.ports if each.port}
        for each in self.ports:
            for each_filter in each.filters:
                for rule in each_filter.rules:
                    named |= _ports(rule.condition)
        return frozenset(named)

    @property
    def source_networks(self) -> frozenset[IPv4Network]:
        """Blocks of addresses of which it says something."""
        conditions = [rule.condition for each in self.ports for part in each.filters for rule in part.rules]
        return frozenset().union(*map(_networks, conditions))

    def guard(self, address: IPv4Address, port: int) -> Guard | None:
        """What it says of a port of one of its addresses (0: of any port that it does not name)."""
        ports = {each.port: each for each in self.ports}
        access = ports.get(port) or ports.get(0)
        if access is None:
            return None
        filters = tuple(
            AccessFilter(each.action, _rules_at(each.rules, address, port)) for each in access.filters
        )
        return Guard(self.trust_domain, access.plaintext, access.mutual, filters)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who dials."""

    address: IPv4Address | None = None
    """None: not known."""
    namespace: str = ""
    service_account: str = ""
    """With the namespace, its proven identity; empty: it has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """A policy as far as it is about one address and port.  Made once for each: compared by identity."""

    trust_domain: str
    plaintext: bool
    mutual: bool
    filters: tuple[AccessFilter, ...]

    def refusal(self, peer: Peer) -> str:
        """Why the peer may not connect; empty: it may."""
        principal = ""
        if self.mutual and peer.namespace and peer.service_account:
            principal = f"spiffe://{self.trust_domain}/ns/{peer.namespace}/sa/{peer.service_account}"
        if not self.plaintext and not self.mutual:
            return "no filter chain leads to this port"
        if not principal and not self.plaintext:
            return "mutual TLS is STRICT, and this client has no identity (ax run --namespace, --service-account)"
        for each in self.filters:
            matched = _first(each, peer, principal)
            if each.action is Action.DENY and matched:
                return f"denied by {matched}"
            if each.action is Action.ALLOW and not matched:
                return "no ALLOW policy matches this client"
        return ""


def _first(each: AccessFilter, peer: Peer, principal: str) -> str:
    """Name of the first rule that matches; of an unknown one where that must count as a match."""
    for rule in each.rules:
        truth = _truth(rule.condition, peer, principal)
        if truth or (truth is None and each.action is Action.DENY):
            return rule.name or "a rule without name"
    return ""


def _truth(condition: Condition, peer: Peer, principal: str) -> bool | None:
    """True, False, or None: not known (Kleene's logic)."""
    match condition.kind:
        case ConditionKind.ALL | ConditionKind.ANY:
            decisive = condition.kind is ConditionKind.ANY
            known: bool | None = not decisive
            for part in condition.parts:
                truth = _truth(part, peer, principal)
                if truth is decisive:
                    return decisive
                if truth is None:
                    known = None
            return known
        case ConditionKind.NOT:
            truth = _truth(condition.parts[0], peer, principal) if condition.parts else None
            return None if truth is None else not truth
        case ConditionKind.SOURCE if condition.network is not None:
            return None if peer.address is None else peer.address in condition.network
        case ConditionKind.PRINCIPAL:
            return _matches(condition.pattern, principal) if principal else False
    return None


def _matches(pattern: str, text: str) -> bool | None:
    compiled = _compiled(pattern)
    return None if compiled is None else compiled.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    """A compiled expression, or None."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def is_pattern(pattern: str) -> bool:
    """Whether it is an expression that `Condition.pattern` may hold."""
    return _compiled(pattern) is not None


# --- what is known of a port before anybody dials it


def _ports(condition: Condition) -> set[int]:
    if condition.kind is ConditionKind.PORT:
        return set(range(max(condition.first, 0), min(condition.last, 65535) + 1))
    return {port for part in condition.parts for port in _ports(part)}


def _networks(condition: Condition) -> frozenset[IPv4Network]:
    own = {condition.network} if condition.kind is ConditionKind.SOURCE and condition.network else set()
    return frozenset(own).union(*map(_networks, condition.parts))


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, condition.parts), default=0)


def check(policies: Sequence[InboundPolicy]) -> None:
    """Raises ValueError for policies that no decoder of ours makes."""
    addresses = [address for policy in policies for address in policy.addresses]
    if len(addresses) != len(set(addresses)):
        raise ValueError("two policies for one address")
    for policy in policies:
        ports = [each.port for each in policy.ports]
        if len(ports) != len(set(ports)) or not all(0 <= port <= 65535 for port in ports):
            raise ValueError(f"ports {ports}")
        for condition in (
            rule.condition for each in policy.ports for part in each.filters for rule in part.rules
        ):
            if _depth(condition) > MAX_DEPTH:
                raise ValueError(f"a condition of more than {MAX_DEPTH} levels")
        if len(policy.named_ports) > MAX_PORTS:
            raise ValueError(f"more than {MAX_PORTS} ports")


def _rules_at(rules: Sequence[AccessRule], address: IPv4Address, port: int) -> tuple[AccessRule, ...]:
    found = (AccessRule(rule.name, _at(rule.condition, address, port)) for rule in rules)
    return tuple(rule for rule in found if rule.condition != NEVER)


def _at(condition: Condition, address: IPv4Address, port: int) -> Condition:
    """The condition with address and port put in, as short as it gets."""

    def known(leaf: Condition) -> Condition:
        if leaf.kind is ConditionKind.DESTINATION and leaf.network is not None:
            return ALWAYS if address in leaf.network else NEVER
        if leaf.kind is ConditionKind.PORT:
            return ALWAYS if port and leaf.first <= port <= leaf.last else NEVER
        return leaf

    return simplified(condition, known)


def simplified(
    condition: Condition, known: Callable[[Condition], Condition] = lambda leaf: leaf
) -> Condition:
    """What is true where the condition is, without parts that change nothing.

    `known` replaces what looks at the connection itself, for example by ALWAYS or NEVER.
    """
    match condition.kind:
        case ConditionKind.NOT if condition.parts:
            part = simplified(condition.parts[0], known)
            return (
                NEVER if part == ALWAYS else ALWAYS if part == NEVER else Condition(condition.kind, (part,))
            )
        case ConditionKind.ALL | ConditionKind.ANY:
            neutral = ALWAYS if condition.kind is ConditionKind.ALL else NEVER
            decisive = NEVER if condition.kind is ConditionKind.ALL else ALWAYS
            parts = tuple(simplified(part, known) for part in condition.parts)
            if decisive in parts:
                return decisive
            left = tuple(part for part in parts if part != neutral)
            return left[0] if len(left) == 1 else Condition(condition.kind, left)
    return known(condition)
