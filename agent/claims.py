"""What ordinary users' apps may call themselves, and how many there may be: `--user-claims`, `--user-apps`.

Pure.

An app that has an address hides it from every other app of the node, and so does a name; labels and identity
open what policy closes.  So these bear the user's own name or number, unless the node's owner says `any`:
nobody then takes another's place, whether that one runs just now or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from appswitch.agent.hello import Request
from appswitch.agent.registry import Registry
from appswitch.errors import Denied, Exhausted
from appswitch.model import DEFAULT_LABELS

MAX_CLASSES: Final = 32
"""Different sets of labels and identities of one user's apps: each takes a place in every service's table."""


@dataclass(frozen=True, slots=True)
class UserRules:
    """What the daemon was told."""

    any: bool
    """Whether ordinary users may claim what root may."""
    apps: int
    """Most apps of one ordinary user at once."""
    virtual: IPv4Network
    """Addresses that hide nobody's."""


ANYTHING: Final = UserRules(True, 1 << 32, IPv4Network("241.0.0.0/8"))


def owner_names(uid: int, name: str) -> tuple[str, ...]:
    """The words by which a user's claims are known: the number, and the name if it can be nobody else's."""
    plain = name == name.lower() and name.isascii() and not name.isdecimal() and "." not in name
    return (str(uid), name) if name and plain else (str(uid),)


def check(request: Request, uid: int, owners: Sequence[str], registry: Registry, rules: UserRules) -> None:
    """Raises Denied, Exhausted."""
    mine = [app for app in registry.snapshot.apps if app.user == uid]
    if len(mine) >= rules.apps:
        raise Exhausted(f"user {uid} has {len(mine)} apps: no more at once by --user-apps of the daemon")
    kinds = {replace(app.app_class, address=None) for app in mine}  # the number of apps bounds those
    if len(kinds | {request.app_class}) > MAX_CLASSES:
        raise Exhausted(
            f"user {uid} has apps of {MAX_CLASSES} different labels and identities: no more at once"
        )
    if rules.any:
        return
    end = f"only root may (end it with .{owners[-1]}, or start the daemon with --user-claims any)"
    if request.name and not _is_own(request.name, owners):
        raise Denied(f"--name {request.name}: {end}")
    if request.app_class.namespace or request.app_class.service_account:
        raise Denied(
            "--namespace, --service-account: only root may (or start the daemon with --user-claims any)"
        )
    for key, value in sorted(request.app_class.labels.pairs - DEFAULT_LABELS.pairs):
        if not _is_own(value, owners):
            raise Denied(f"--labels {key}={value}: {end}")
    if request.ip is not None:
        _check_address(request.ip, uid, registry, rules)


def address(request: Request, uid: int, registry: Registry, rules: UserRules) -> IPv4Address | None:
    """For an app that claims none: its user's own, not the node's, which is root's apps'.  None: as root's.

    Raises Conflict: the range is full.
    """
    if rules.any or request.ip is not None or request.name:
        return request.ip
    for app in registry.snapshot.apps:
        if app.user == uid and not app.name and app.ip in rules.virtual:
            return app.ip
    return registry.vip(f"user.{uid}")


def _is_own(text: str, owners: Sequence[str]) -> bool:
    return any(text == owner or text.endswith(f".{owner}") for owner in owners)


def _check_address(ip: IPv4Address, uid: int, registry: Registry, rules: UserRules) -> None:
    if ip not in rules.virtual:
        raise Denied(
            f"--ip {ip}: only root may take an address that may be another's; yours are of {rules.virtual} "
            "(or start the daemon with --user-claims any)"
        )
    others = [app for app in registry.snapshot.apps if app.ip == ip and app.user != uid]
    if others:
        raise Denied(f"--ip {ip}: app {others[0].id_text} of user {others[0].user} has it; choose another")
    for policy in registry.snapshot.policies:
        blocks = [network for network in policy.source_networks if network.prefixlen]
        if ip in policy.addresses or any(ip in network for network in blocks):
            raise Denied(f"--ip {ip}: a policy of the mesh is about it; choose another")
    for vservice in registry.snapshot.vservices:
        if ip in vservice.addresses or any(backend.address == ip for backend in vservice.backends):
            raise Denied(f"--ip {ip}: vservice {vservice.name!r} names it; choose another")
