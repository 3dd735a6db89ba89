"""Network namespaces that apps' launchers come from: is it the node's, and the app's address on its lo.

A container without a network has but 127.x on its lo, and glibc's getaddrinfo with AI_ADDRCONFIG then
finds no IPv4 address of anything.  Its launcher has no right to add one; the daemon has.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from functools import partial
from ipaddress import IPv4Address
from threading import Thread
from typing import Final

CLONE_NEWNET: Final = 0x40000000
_RTM_NEWLINK: Final = 16
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_REQUEST_ACK: Final = 0x5
_CREATE: Final = 0x600
"""NLM_F_CREATE | NLM_F_EXCL"""
_IFF_UP: Final = 1
_IFA_LOCAL: Final = 2
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


def show_address(pidfd: int, ip: IPv4Address) -> int:
    """Sets lo up where the process is, with IP/32; a descriptor of that namespace, the caller's to close.

    Raises OSError.
    """
    namespace, netlink = _inside(pidfd)
    with netlink:
        try:
            _request(netlink, _RTM_NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, _LO, _IFF_UP, _IFF_UP))
            _request(netlink, _RTM_NEWADDR, _CREATE, _address(ip))
        except OSError as error:
            if error.errno != errno.EEXIST:
                os.close(namespace)
                raise
    return namespace


def hide_address(namespace: int, ip: IPv4Address) -> None:
    """Takes it away again.  Raises OSError."""
    again, netlink = _inside(namespace)
    os.close(again)
    with netlink:
        _request(netlink, _RTM_DELADDR, 0, _address(ip))


def _inside(where: int) -> tuple[int, socket.socket]:
    """A descriptor of the namespace that `where` (also a pidfd) stands for, and a netlink socket in it.

    Raises OSError.
    """
    found: list[tuple[int, socket.socket]] = []
    failed: list[OSError] = []
    # A thread that ends in there: none of ours can then be left in the wrong namespace.
    thread = Thread(target=partial(_visit, where, found, failed), name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _visit(where: int, found: list[tuple[int, socket.socket]], failed: list[OSError]) -> None:
    namespace = -1
    try:
        if _libc.setns(where, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        found.append((namespace, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)))
    except OSError as error:
        if namespace >= 0:
            os.close(namespace)
        failed.append(error)


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
