"""What the daemon must know of its machine: its addresses and its listening sockets.  Blocking netlink."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from pyroute2 import DiagSocket, IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appswitch.errors import UsageError

_LISTEN = 1 << 10
"""TCP_LISTEN's bit (include/net/tcp_states.h) in an inet_diag request."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """IPv4 addresses of this network namespace."""

    ip: IPv4Address | None
    """The node's; None where there is no address but loopback."""
    local: frozenset[IPv4Address]
    """All but loopback's."""


def addresses(interface: str) -> Addresses:
    """The node's addresses; `interface` (`--node-interface`) is an address, a name, or "" for the first.

    Raises UsageError: no such interface or address here.
    """
    with IPRoute() as route:
        found = [
            (int(message["index"]), IPv4Address(text))
            for message in route.get_addr(family=socket.AF_INET)
            if (text := message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        ]
        names = route.link_lookup(ifname=interface) if interface else []
    usable = [(index, ip) for index, ip in found if not ip.is_loopback]
    local = frozenset(ip for _, ip in usable)
    if not interface:
        return Addresses(usable[0][1] if usable else None, local)
    try:
        wanted = IPv4Address(interface)
    except AddressValueError:
        if not names:
            raise UsageError(f"--node-interface: {interface!r} is no interface of this machine") from None
        own = [ip for index, ip in usable if index == names[0]]
        if not own:
            raise UsageError(f"--node-interface: {interface!r} has no IPv4 address") from None
        return Addresses(own[0], local)
    if wanted not in local:
        raise UsageError(f"--node-interface: {interface} is no address of this machine")
    return Addresses(wanted, local)


def backlogs() -> dict[int, int]:
    """SO_COOKIE of each listening TCP socket of this namespace → its backlog (sock_diag(7)).

    Empty where the kernel has no inet_diag.
    """
    found: dict[int, int] = {}
    try:
        with DiagSocket() as diag:
            diag.bind()
            for family in (socket.AF_INET, socket.AF_INET6):
                for item in diag.get_sock_stats(family=family, states=_LISTEN):
                    found[int(item["idiag_cookie"])] = int(item["idiag_wqueue"])
    except (OSError, NetlinkError):
        return found
    return found
