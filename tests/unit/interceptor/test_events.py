"""The decoder of ring buffer records."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.errors import InvalidInput
from appswitch.interceptor import abi
from appswitch.interceptor.events import (
    AdmissionRefused,
    Crowded,
    Denied,
    Event,
    ListenerDown,
    ListenerUp,
    PoolEmpty,
    TableFull,
    decode,
)
from appswitch.model import BindScope, Destination, Protocol, Service

IP = IPv4Address("1.1.1.1")
SERVICE = Service(7, Protocol.TCP, 80, 40001, BindScope.VIRTUAL, 99)


def record(kind: int, error: int = 0) -> bytes:
    return abi.EVENT.pack(kind, 7, IP.packed, 5, 80, 40001, 6, 1, error, 99, 12345)


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (record(1), ListenerUp(SERVICE)),
        (record(2), ListenerDown(SERVICE)),
        (record(3, 13), Denied(7, Destination(IP, 80), 13, 5)),
        (record(4, 13), AdmissionRefused(7, IP, 80, 40001, Protocol.TCP, IPv4Address("5.0.0.0"), 99)),
        (record(5), PoolEmpty(7, 80, Protocol.TCP)),
        (record(6), TableFull(7, 80, Protocol.TCP)),
        (record(7), Crowded(7, 80, Protocol.TCP)),
    ],
)
def test_each_kind(data: bytes, event: Event) -> None:
    assert decode(data) == event


@pytest.mark.parametrize("data", [b"", record(1)[:-1], record(1) + b"\0", record(0), record(8)])
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="from the kernel"):
        decode(data)


@given(st.binary(max_size=64) | st.binary(min_size=abi.EVENT.size, max_size=abi.EVENT.size))
def test_only_the_typed_error(data: bytes) -> None:
    try:
        decode(data)
    except InvalidInput:
        pass
