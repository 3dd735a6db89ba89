"""How each resource stands with the server, in the words of the client status API.  Pure.

The words are those of envoy.admin.v3.ClientResourceStatus; a NACK is kept for each resource until a good
version of it comes, though other responses of its type are accepted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from appswitch.xds.held import ABSENT, HeldType
from appswitch.xds.resources import SHORT


class Status(Enum):
    """Of one resource."""

    REQUESTED = "REQUESTED"
    """Asked for by name; nothing has come."""
    ACKED = "ACKED"
    NACKED = "NACKED"
    """The last version of it was not taken; the one before stays in force, if there was one."""
    DOES_NOT_EXIST = "DOES_NOT_EXIST"
    """Asked for by name; the server says that it is not there, or not for this node; or nothing came."""
    RECEIVED_ERROR = "RECEIVED_ERROR"
    """Asked for by name; the server failed to make it.  What was in force stays."""


@dataclass(frozen=True, slots=True)
class ResourceStatus:
    """One resource."""

    type: str
    """`cds`, `eds`, …"""
    name: str
    """The name table has none."""
    status: Status
    version: str = ""
    """In force: the resource's own, else that of the last good response it was in."""
    since: float | None = None
    """When what is in force came; None: nothing is."""
    error: str = ""
    error_version: str = ""
    """Of the response that was not taken."""
    error_at: float | None = None


def keys(types: Mapping[str, HeldType], after: tuple[str, str] = ("", "")) -> Iterator[tuple[str, str]]:
    """(type's URL, name) of all that was asked for or sent, by short type and name.

    `after`: a short type and a name to begin after.  A response may be taken over meanwhile, in another
    thread: each dict is copied in one step first.
    """
    for url in sorted(types, key=SHORT.__getitem__):
        short, state = SHORT[url], types[url]
        if short < after[0]:
            continue
        known = {*state.names, *list(state.resources), *list(state.rejected), *list(state.withheld)}
        known.update(name for name, _ in state.errors)
        yield from ((url, name) for name in sorted(n for n in known if short > after[0] or n > after[1]))


def version(state: HeldType, name: str) -> str:
    """Of a resource in force; Istiod gives resources none of their own."""
    return state.versions.get(name) or state.brought.get(name, "")


def status(state: HeldType, short: str, name: str) -> ResourceStatus:
    """How one resource stands."""
    in_force, since = version(state, name), state.since.get(name)
    if (rejection := state.rejected.get(name)) is not None:
        return ResourceStatus(
            short, name, Status.NACKED, in_force, since, rejection.reason, rejection.version, rejection.at
        )
    if (refusal := state.withheld.get(name)) is not None:
        absent = refusal.code in ABSENT
        word = Status.DOES_NOT_EXIST if absent else Status.RECEIVED_ERROR
        return ResourceStatus(short, name, word, in_force, since, refusal.reason)
    if since is not None:
        return ResourceStatus(short, name, Status.ACKED, in_force, since)
    if name in state.removed:
        return ResourceStatus(short, name, Status.DOES_NOT_EXIST)
    if (reason := dict(state.errors).get(name)) is not None:  # without a readable name, or not asked for
        return ResourceStatus(short, name, Status.NACKED, error=reason)
    return ResourceStatus(short, name, Status.REQUESTED)
