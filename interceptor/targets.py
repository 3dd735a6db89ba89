"""What a key of the tables leads to, before policy and liveness: the words of the decision.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from errno import EACCES, ECONNREFUSED
from math import lcm
from typing import Final, NamedTuple

from appswitch.model import Class, Labels, LbPolicy
from appswitch.policy import Guard, Peer


class Rule(Enum):
    """Which part of the decision spoke; the values are shown by `ax explain` and in events."""

    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    DNS = "dns"
    REST = "rest"
    VSERVICE = "vservice"
    SERVICE = "service"
    """Apps that listen on exactly this port of their address."""
    APP = "app"
    """Apps that have this address, whatever they listen on."""
    OUTSIDE = "outside"
    """Nothing of ours."""


class Key(NamedTuple):
    """A destination as the tables know it."""

    address: int
    """IPv4, as an integer: far quicker to hash than `IPv4Address`."""
    port: int
    """0: every port of the address that has no key of its own."""
    protocol: int


class Access(NamedTuple):
    """What a client needs to reach an app's port."""

    labels: Labels
    """One in common."""
    guard: Guard | None = None
    """And that this lets it through."""
    also: tuple[Guard, ...] = ()
    """And these."""
    own: Class | None = None
    """Of a guarded app that has its address alone: it may always dial itself."""

    def refusal(self, client: Class) -> str:
        """Why the client may not; empty: it may."""
        if not client.reaches(self.labels):
            return NO_LABEL
        if self.guard is None or client == self.own:
            return ""
        peer = Peer(client.address, client.namespace, client.service_account)
        return next(filter(None, (each.refusal(peer) for each in (self.guard, *self.also))), "")


NO_LABEL: Final = "no shared label"
NO_ADDRESS: Final = "this client's address is not known: start it anew"


class Member(NamedTuple):
    """One backend behind a key, before policy: an app, or an address outside."""

    app: int
    """AppId; 0: an address outside."""
    address: int
    port: int
    """0: the port that was asked for."""
    weight: int
    """Of its share."""
    share: int
    """Members of one share (apps that have the same address) divide its weight equally."""
    access: Access | None
    """None: not an app, so anybody may."""


@dataclass(frozen=True, slots=True)
class Target:
    """All that a key leads to, before policy and liveness."""

    rule: Rule
    name: str
    """The vservice's name; empty: the key's address says it."""
    members: tuple[Member, ...] = ()
    policy: LbPolicy = LbPolicy.RANDOM
    source_ip: int = 0
    denied: int = EACCES
    """errno where there are apps and none shares a label; 0: go there directly."""
    dead: int = ECONNREFUSED
    """errno where nobody is left; 0: go there directly."""

    @property
    def guarded(self) -> bool:
        """Whether a policy says who may, so that clients' addresses matter."""
        return any(m.access is not None and m.access.guard is not None for m in self.members)


def effective_weights(members: Sequence[Member]) -> list[int]:
    """Integer weights of members that policy let through: each share's weight divided among its members."""
    if len({member.share for member in members}) == len(members):
        return [member.weight for member in members]
    sizes: dict[int, int] = {}
    for member in members:
        sizes[member.share] = sizes.get(member.share, 0) + 1
    scale = lcm(*sizes.values())
    return [member.weight * (scale // sizes[member.share]) for member in members]
