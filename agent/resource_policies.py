"""What REST answers and `ax get policies` shows: who may connect to the servers of this node.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from appswitch.agent.policy_words import words
from appswitch.model import Snapshot
from appswitch.policy import ALWAYS, NEVER, AccessRule, PortAccess

MTLS: Final = {
    (True, True): "PERMISSIVE",
    (False, True): "STRICT",
    (True, False): "DISABLE",
    (False, False): "NONE",
}
"""In the words of a PeerAuthentication, by (plaintext, mutual)."""


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """One rule about one port; of a port without rules one row without rule."""

    address: str
    """IP of the servers."""
    port: int
    """Theirs; 0: every one that has no rows of its own."""
    mtls: str
    """`STRICT`, `PERMISSIVE` or `DISABLE`; `NONE`: nobody is let in, with identity or without."""
    filter: int
    """A connection must pass all filters of a port: 1, 2, …; 0: there is none."""
    action: str
    """`ALLOW`: of the filter's rules one must match; `DENY`: none may.  Empty: there is no filter."""
    rule: str
    """As Istiod names it; empty: there is none."""
    condition: str
    """When it matches, in words."""


def views(snapshot: Snapshot) -> list[PolicyView]:
    """By address, port and filter, in the order in which the rules are looked at."""
    return [
        PolicyView(
            address=str(address),
            port=access.port,
            mtls=MTLS[access.plaintext, access.mutual],
            filter=number,
            action=action,
            rule=rule.name,
            condition=words(rule.condition),
        )
        for address, policy in sorted(
            ((address, policy) for policy in snapshot.policies for address in policy.addresses),
            key=lambda pair: pair[0],
        )
        for access in sorted(policy.ports, key=lambda each: each.port)
        for number, action, rule in _rules(access)
    ]


def _rules(access: PortAccess) -> Iterator[tuple[int, str, AccessRule]]:
    if not access.filters:
        yield 0, "", AccessRule("", ALWAYS)
    for number, each in enumerate(access.filters, 1):
        for rule in each.rules or (AccessRule("", NEVER),):
            yield number, each.action.value, rule
