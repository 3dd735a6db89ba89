"""Sockets that listen already, by sock_diag(7): what no program of ours saw begin.  Blocking; needs root."""

from __future__ import annotations

import socket
from collections.abc import Container
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

from pyroute2 import DiagSocket

from appswitch.interceptor.netns import inside
from appswitch.model import Protocol

_LISTEN: Final = 1 << 10
"""TCP_LISTEN's bit (include/net/tcp_states.h) in an inet_diag request."""
_UNCONNECTED: Final = 1 << 7
"""TCP_CLOSE: of UDP, sockets without a peer."""
_ANY: Final = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that serves IPv4."""

    protocol: Protocol
    address: IPv4Address
    """0.0.0.0: every address."""
    port: int
    cookie: int
    cgroup: int
    """Number of the cgroup in which it was made."""


def listeners_of(pid: int, cgroups: Container[int]) -> list[Listener]:
    """Those in the network of a process that were made in one of these cgroups.  Raises OSError."""
    return [each for each in inside(pid, listeners) if each.cgroup in cgroups]


def listeners() -> list[Listener]:
    """Of the present namespace (sock_diag(7)): TCP ones, and UDP ones on a port that somebody chose."""
    found = []
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with DiagSocket() as diag:
        diag.bind()
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol, states in ((Protocol.TCP, _LISTEN), (Protocol.UDP, _UNCONNECTED)):
                for item in diag.get_sock_stats(family=family, states=states, protocol=int(protocol)):
                    listener = _listener(item, protocol)
                    if listener and not (protocol is Protocol.UDP and first <= listener.port <= last):
                        found.append(listener)
    return found


def _listener(item: Any, protocol: Protocol) -> Listener | None:
    """None: it serves IPv6 alone, or this namespace alone."""
    address: IPv4Address | IPv6Address | None = ip_address(item["idiag_src"])
    if isinstance(address, IPv6Address):
        if not int(address):
            address = None if item.get_attr("INET_DIAG_SKV6ONLY") else _ANY
        else:
            address = address.ipv4_mapped
    if address is None or address.is_loopback:
        return None
    cgroup = int(item.get_attr("INET_DIAG_CGROUP_ID") or 0)
    return Listener(protocol, address, int(item["idiag_sport"]), int(item["idiag_cookie"]), cgroup)
