"""A RST for a stranger of this node whose SYN was not admitted, so that it fails at once.

Dropping the SYN alone is silence: the stranger's connect() would hang for two minutes.  Only
addresses of this node get one, and only so many a second: a RST to elsewhere would tell a
scanner that somebody is there.  Source: RFC 9293, 3.5.2 (a SYN without a connection).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from appswitch.interceptor.events import AdmissionRefused
from appswitch.model import Protocol

_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_RST_ACK: Final = 0x14
RATE: Final = 100
"""RSTs a second, at most."""


def packet(refused: AdmissionRefused) -> bytes:
    """The IPv4 packet, header included, that answers the SYN."""
    ends = refused.dialled.packed, refused.source.packed
    ports = refused.real_port, refused.source_port
    acknowledge = (refused.sequence + 1) & 0xFFFFFFFF
    tcp = _TCP.pack(*ports, 0, acknowledge, 5 << 4, _RST_ACK, 0, 0, 0)
    pseudo = struct.pack("!4s4sBBH", *ends, 0, Protocol.TCP, len(tcp))
    tcp = _TCP.pack(*ports, 0, acknowledge, 5 << 4, _RST_ACK, 0, _checksum(pseudo + tcp), 0)
    # identification and header checksum are the kernel's to fill in (raw(7))
    return _IP.pack(0x45, 0, _IP.size + len(tcp), 0, 0, 64, Protocol.TCP, 0, *ends) + tcp


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Resetter:
    """The raw socket that sends them, and the limit."""

    def __init__(self) -> None:
        """Raises OSError without CAP_NET_RAW."""
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW
        )
        self._socket.setblocking(False)
        self._second = 0
        self._sent = 0

    def answer(self, refused: AdmissionRefused, local: frozenset[bytes], now: float) -> bool:
        """Sends one where the stranger is on this node (`local`: packed addresses beside 127/8)."""
        source = refused.source
        if refused.protocol is not Protocol.TCP or not (source.is_loopback or source.packed in local):
            return False
        if int(now) != self._second:
            self._second, self._sent = int(now), 0
        if self._sent >= RATE:
            return False
        self._sent += 1
        try:
            self._socket.sendto(packet(refused), (str(source), 0))
        except OSError:  # the stranger times out instead
            return False
        return True

    def close(self) -> None:
        """Releases the socket."""
        self._socket.close()
