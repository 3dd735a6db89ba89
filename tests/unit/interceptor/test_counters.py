"""Keys and values of the counters' maps."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import IPv4Address
from sys import byteorder

from hypothesis import given
from hypothesis import strategies as st

from appswitch.interceptor import abi
from appswitch.interceptor.counters import Count, Edge, EdgeKind, decode_edge

ONE, TWO = IPv4Address("1.1.1.1"), IPv4Address("2.2.2.2")


def key(kind: int, target: bytes) -> bytes:
    return abi.COUNT_KEY.pack(7, ONE.packed, target, 80, 901, kind, bytes(3))


def test_edges() -> None:
    assert decode_edge(key(abi.COUNT_ADDRESS, TWO.packed)) == Edge(7, EdgeKind.ADDRESS, ONE, 80, 0, TWO, 901)
    number = (0xF0000002).to_bytes(4, byteorder)
    assert decode_edge(key(abi.COUNT_APP, number)) == Edge(
        7, EdgeKind.APP, ONE, 80, 0xF0000002, backend_port=901
    )
    assert decode_edge(key(abi.COUNT_OUTSIDE, bytes(4))) == Edge(7, EdgeKind.OUTSIDE)
    assert decode_edge(key(abi.COUNT_LOOPBACK, bytes(4))) == Edge(7, EdgeKind.LOOPBACK)


@given(st.binary(min_size=abi.COUNT_KEY.size, max_size=abi.COUNT_KEY.size))
def test_any_key_decodes(raw: bytes) -> None:
    assert decode_edge(raw).app == int.from_bytes(raw[:4], byteorder)


def test_counts_add_up() -> None:
    assert len(fields(Count)) == abi.COUNT.size // 8
    one = Count(*range(1, 12))
    assert one + Count(*[10] * 11) == Count(11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 11)
    assert (one + Count()) == one
    assert Count(opened=5, ended=2).active == 3
    assert Count(opened=2, ended=5).active == 0
