"""Somebody's network namespace: work done inside it, its addresses.  Blocking; needs root.

How it is entered: `network.inside`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appswitch.errors import Unsupported
from appswitch.interceptor import network
from appswitch.interceptor.network import is_ours

T = TypeVar("T")

_SO_NETNS_COOKIE: Final = 71
_ANY: Final = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Pod:
    """A network of an app's own."""

    address: IPv4Address
    """The app's, there."""
    node: IPv4Address
    """The node's, as it is reached from there; 0.0.0.0: it is not."""
    netns: int
    """Cookie of the network namespace."""


def pod_of(pid: int) -> Pod | None:
    """The network of a process; None: it is in ours.  Raises OSError, Unsupported (no address there)."""
    if is_ours(pid):
        return None
    found, netns = inside(pid, lambda: (addresses(), cookie()))
    if not found:
        raise Unsupported(
            f"the network namespace of process {pid} has no IPv4 address but loopback: nothing there"
            " can be dialled; attach it once its network is set up"
        )
    return Pod(found[0], inside(os.getpid(), lambda: source_towards(found[0])), netns)


def number(pid: int) -> int:
    """Of the process's network namespace.  Raises OSError."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def inside(pid: int, work: Callable[[], T]) -> T:
    """What `work` returns, called in a process's network namespace.  Raises OSError and what it raises."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return network.inside(descriptor, work)
    finally:
        os.close(descriptor)


def cookie() -> int:
    """The kernel's number of the present namespace that is never used again.  Raises OSError."""
    with socket.socket() as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def addresses() -> tuple[IPv4Address, ...]:
    """IPv4 addresses of the present namespace that others can dial."""
    with IPRoute() as route:
        found = [
            IPv4Address(text)
            for message in route.get_addr(family=socket.AF_INET)
            if (text := message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        ]
    return tuple(ip for ip in found if not (ip.is_loopback or ip.is_link_local))


def source_towards(address: IPv4Address) -> IPv4Address:
    """The present namespace's own address towards another one; 0.0.0.0: there is no way."""
    try:
        with IPRoute() as route:
            for message in route.route("get", dst=str(address)):
                if text := message.get_attr("RTA_PREFSRC"):
                    return IPv4Address(text)
    except NetlinkError:
        pass
    return _ANY
