"""Sockets for the apps, made and marked before they are asked for.

The owner is written into a socket's storage before the app sees it: the programs on the cgroups know an
injected socket by nothing else.  One socket of every kind that the app has used is kept ready, which takes
its making out of the time that the app waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Final

from appswitch.interceptor import abi, cgroup
from appswitch.interceptor.libbpf import Map

Kind = tuple[int, int, int]
"""domain, type and protocol as the app passed them, upper halves and all"""

_IPPROTO_MPTCP: Final = 262
_TYPE_MASK: Final = 0xF
_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_FD: Final = struct.Struct("=i")


@dataclass(slots=True, eq=False)
class Owner:
    """Whom sockets are made for: an app of its own filter, or one inside another."""

    id: int
    class_index: int
    ip: IPv4Address
    mark: bytes = field(init=False)
    """What each of its sockets carries (abi.SOCK)."""
    ready: dict[Kind, int] = field(init=False, default_factory=dict)
    """A socket waiting for the next call of that kind."""

    def __post_init__(self) -> None:
        self.mark = abi.sock_value(self.id, self.class_index, self.ip.packed, abi.APP_EMPTY)

    def close_ready(self) -> None:
        """Gives the waiting sockets up."""
        for kind in list(self.ready):
            if (fd := self.ready.pop(kind, -1)) >= 0:
                os.close(fd)


@dataclass(slots=True, eq=False)
class HeldApp(Owner):
    """An app in the holder's care."""

    fd: int
    """Notify descriptor, ours."""
    inner: dict[str, Owner] = field(init=False, default_factory=dict)
    """Apps under this filter that `ax run` made inside this app, by their cgroups."""
    busy: bool = field(init=False, default=False)
    """A thread was left behind in one of its calls."""
    gone: bool = field(init=False, default=False)
    """Forgotten while `busy`: that thread closes the descriptors."""

    def caller(self, thread: int) -> Owner:
        """Who the thread belongs to; 0 is one of a pid namespace that is not below ours.  Raises OSError."""
        if not self.inner or not thread:
            return self
        path = cgroup.of_process(thread)
        while path:  # it may have made cgroups below the app's
            if (found := self.inner.get(path)) is not None:
                return found
            path = path.rpartition("/")[0]
        return self

    def close_ready(self) -> None:
        """Gives the waiting sockets up, those of the apps inside too."""
        Owner.close_ready(self)
        for owner in list(self.inner.values()):
            owner.close_ready()

    def close(self) -> None:
        """Closes all that we hold for it."""
        self.close_ready()
        os.close(self.fd)


@lru_cache(maxsize=64)
def parse(kind: Kind) -> Kind:
    """What socket(2) makes of the arguments: 32-bit numbers; CLOEXEC is left out, NONBLOCK kept.

    Raises OSError: what the filter should not have sent us.  The node's raw or packet sockets are not given.
    """
    domain, how, protocol = (argument & 0xFFFF_FFFF for argument in kind)
    if domain not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, "not an Internet socket")
    if how & ~(_TYPE_MASK | _FLAGS):
        raise OSError(errno.EINVAL, "unknown flags in the type")
    if how & _TYPE_MASK not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        raise OSError(errno.ESOCKTNOSUPPORT, "neither stream nor datagram")
    if protocol not in (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        # MPTCP: as a kernel without it answers, so that Go falls back to TCP.
        raise OSError(errno.EPROTONOSUPPORT, "MPTCP" if protocol == _IPPROTO_MPTCP else "neither TCP nor UDP")
    return domain, how & ~socket.SOCK_CLOEXEC, protocol


class Maker:
    """Makes marked sockets."""

    def __init__(self, storage: Map) -> None:
        self._storage = storage

    def make(self, owner: Owner, kind: Kind) -> int:
        """A new socket of the node's network, marked as the owner's.  Raises OSError, as socket(2) does."""
        fd = socket.SocketType(*parse(kind)).detach()  # the C class: 1 µs less than socket.socket
        try:
            self._storage.update(_FD.pack(fd), owner.mark)
        except OSError:
            os.close(fd)
            raise
        return fd

    def make_at_any_price(self, owner: Owner, kind: Kind, others: Iterable[HeldApp]) -> int:
        """The same; when we are out of descriptors, the sockets that merely wait make room."""
        try:
            return self.make(owner, kind)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        for other in others:
            other.close_ready()
        return self.make(owner, kind)

    def restock(self, owner: Owner, kind: Kind) -> None:
        """Puts the next one by.  Failure is left to the call that will need it."""
        if kind in owner.ready or len(owner.ready) >= MAX_KINDS:
            return
        try:
            owner.ready[kind] = self.make(owner, kind)
        except OSError:
            return


MAX_KINDS: Final = 16
"""Kinds kept ready for one app: an app cannot make us hold more by odd arguments."""
