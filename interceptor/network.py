"""Network namespaces that apps' launchers come from: is it the node's, may the caller command the node's,
and the app's address on its lo.

A container without a network has but 127.x on its lo, and glibc's getaddrinfo with AI_ADDRCONFIG then
finds no IPv4 address of anything.  Its launcher has no right to add one; the daemon has.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from threading import Thread
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000
_RTM_NEWLINK: Final = 16
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_REQUEST_ACK: Final = 0x5
_CREATE: Final = 0x600
"""NLM_F_CREATE | NLM_F_EXCL"""
_IFF_UP: Final = 1
_IFA_LOCAL: Final = 2
_CAP_NET_ADMIN: Final = 1 << 12
_CAP_SYS_ADMIN: Final = 1 << 21
_SIOCGIFFLAGS: Final = 0x8913
_LO: Final = 1
"""Index of lo, in every namespace the first."""
_HEADER: Final = struct.Struct("=IHHII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_LINK: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH4s")

_libc = ctypes.CDLL(None, use_errno=True)


def is_ours(pid: int) -> bool:
    """Whether the process is in our network namespace.  Raises OSError: it is gone."""
    other, own = os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net")
    return (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino)


def commands_ours(pid: int, uid: int) -> bool:
    """Whether the process has CAP_NET_ADMIN over our network, or can get it, and yet is not root of the node:
    in a container with NET_ADMIN, say, or by AmbientCapabilities.  Raises OSError: it is gone.

    A socket of ours in its hands would obey it.  uid 0 can get what its bounding set has; others, who
    cannot gain privileges, have what they have (capabilities(7)).
    """
    held = _held(pid, uid)
    return bool(held & _CAP_NET_ADMIN) and not held & _CAP_SYS_ADMIN


def is_root_of_node(pid: int) -> bool:
    """Whether it has CAP_SYS_ADMIN in our user namespace, or can get it.  Raises OSError: it is gone."""
    return bool(_held(pid, 0) & _CAP_SYS_ADMIN)


def _held(pid: int, uid: int) -> int:
    """Capabilities that count in our user namespace, and that the process has or, as root, can get."""
    theirs, ours = os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user")
    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
        return 0  # they count in there alone
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        sets = dict(line.split(":", 1) for line in lines if line.startswith("Cap"))
    return int(sets["CapPrm"], 16) | (int(sets["CapBnd"], 16) if not uid else 0)


def show_address(pidfd: int, ip: IPv4Address) -> int:
    """Sets lo up where the process is, with IP/32; a descriptor of that namespace, the caller's to close.

    Raises OSError; EPERM: a network is there, though the caller denied it, and programs in it may mean that
    address.
    """

    def show() -> int:
        with _netlink() as netlink:
            if any(_is_up(netlink, name) for index, name in socket.if_nameindex() if index != _LO):
                raise PermissionError(errno.EPERM, "the namespace has a network of its own")
            try:
                _request(netlink, _RTM_NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, _LO, _IFF_UP, _IFF_UP))
                _request(netlink, _RTM_NEWADDR, _CREATE, _address(ip))
            except FileExistsError:
                pass  # another app's, too
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return inside(pidfd, show)


def hide_address(namespace: int, ip: IPv4Address) -> None:
    """Takes it away again.  Raises OSError."""

    def hide() -> None:
        with _netlink() as netlink:
            _request(netlink, _RTM_DELADDR, 0, _address(ip))

    inside(namespace, hide)


T = TypeVar("T")


def inside(namespace: int, work: Callable[[], T]) -> T:
    """What `work` returns, called in the network namespace that a descriptor (also a pidfd) stands for.

    Blocks.  Raises OSError and what `work` raises.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            found.append(work())
        except BaseException as error:  # noqa: BLE001  handed on to the caller
            failed.append(error)

    # A thread that ends in there: none of ours can then be left in the wrong namespace.
    thread = Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _is_up(sock: socket.socket, name: str) -> bool:
    """Of an interface in the socket's namespace (netdevice(7)); False if it has gone."""
    try:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
    except OSError:
        return False
    return bool(struct.unpack_from("=H", answer, 16)[0] & _IFF_UP)


def _address(ip: IPv4Address) -> bytes:
    return _ADDRESS.pack(socket.AF_INET, 32, 0, 0, _LO) + _ATTRIBUTE.pack(8, _IFA_LOCAL, ip.packed)


def _request(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """One message of rtnetlink(7) and its answer.  Raises OSError."""
    netlink.settimeout(5)
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK | flags, 1, 0) + body)
    answer = netlink.recv(4096)
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if number:
        raise OSError(-number, os.strerror(-number))
