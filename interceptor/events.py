"""Decodes what the BPF programs tell through the ring buffer.  Pure.

`struct event` of `bpf/abi.h`; a record that does not decode raises InvalidInput and costs
nothing but itself: the tables in the kernel stay the truth, and the daemon can read them anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from appswitch.errors import InvalidInput
from appswitch.interceptor import abi
from appswitch.model import BindScope, Destination, Protocol, Service


@dataclass(frozen=True, slots=True)
class ListenerUp:
    """The first socket of an app listens on this port."""

    service: Service


@dataclass(frozen=True, slots=True)
class ListenerDown:
    """The last socket that listened on this port is gone."""

    service: Service


@dataclass(frozen=True, slots=True)
class Denied:
    """A connect() or sendmsg() that policy refused."""

    app: int
    destination: Destination
    error: int
    """errno, positive"""
    service: int
    """index in the kernel's table, 0 where none was found"""


@dataclass(frozen=True, slots=True)
class AdmissionRefused:
    """A SYN or datagram from somebody whom no decision let through."""

    app: int
    source: IPv4Address
    source_port: int
    real_port: int
    protocol: Protocol
    dialled: IPv4Address
    sequence: int = 0
    """Of the SYN, in host order: what a RST must acknowledge."""


@dataclass(frozen=True, slots=True)
class PoolEmpty:
    """bind() failed because no real port was left."""

    app: int
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class TableFull:
    """bind() or listen() found the service table of the kernel full."""

    app: int
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Crowded:
    """bind() failed because the app holds as many real ports as one app may.  Said once."""

    app: int
    port: int
    protocol: Protocol


Event = ListenerUp | ListenerDown | Denied | AdmissionRefused | PoolEmpty | TableFull | Crowded


def decode(record: bytes) -> Event:
    """Raises InvalidInput for a record of another size or with values that cannot be."""
    try:
        kind, app, ip, index, port, real, protocol_number, scope, error, cookie, _time = abi.EVENT.unpack(
            record
        )
        address, protocol = IPv4Address(ip), Protocol(protocol_number)
        match kind:
            case 1 | 2:
                service = Service(app, protocol, port, real, BindScope(scope), cookie)
                return ListenerUp(service) if kind == 1 else ListenerDown(service)
            case 3:
                return Denied(app, Destination(address, port, protocol), error, index)
            case 4:
                dialled = IPv4Address(struct.pack("=I", index))
                return AdmissionRefused(app, address, port, real, protocol, dialled, cookie)
            case 5:
                return PoolEmpty(app, port, protocol)
            case 6:
                return TableFull(app, port, protocol)
            case 7:
                return Crowded(app, port, protocol)
    except (struct.error, ValueError) as problem:
        raise InvalidInput(f"event of {len(record)} bytes from the kernel: {problem}") from problem
    raise InvalidInput(f"event of unknown kind {kind} from the kernel")
