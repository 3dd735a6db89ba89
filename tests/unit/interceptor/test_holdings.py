"""Ports that apps hold and do not use: found after a minute, given back, counted anew."""

from __future__ import annotations

import struct

from appswitch.interceptor import abi
from appswitch.interceptor.holdings import EXIST, IDLE, PERIOD, Holdings
from appswitch.interceptor.libbpf import NOEXIST
from appswitch.model import Protocol


class MemoryMap(dict[bytes, bytes]):
    """`libbpf.Map`, as far as it is used here."""

    def items(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        return list(super().items())

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:  # type: ignore[override]
        assert flags in (NOEXIST, EXIST) and (key in self) == (flags == EXIST)
        self[key] = value

    def take(self, key: bytes) -> bytes | None:
        return self.pop(key, None)

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None


class Table:
    """The three maps, and what is in them."""

    def __init__(self) -> None:
        self.ports, self.reals, self.usages = MemoryMap(), MemoryMap(), MemoryMap()
        self.holdings = Holdings(self.ports, self.reals, self.usages)  # type: ignore[arg-type]

    def row(
        self, port: int, real: int, listening: int = 0, *, lasting: bool = True, exposed: int = 0
    ) -> None:
        key = abi.PORT_KEY.pack(7, port, Protocol.TCP, 0)
        self.ports[key] = abi.PORT.pack(real, 0, 0, listening, 0, real if lasting else 0, 0)
        behind = abi.REAL_KEY.pack(real, Protocol.TCP, 0)
        self.reals[behind] = abi.REAL.pack(7, bytes(4), port, exposed, bytes(4))

    def count(self) -> int:
        return int(abi.USAGE.unpack(self.usages[struct.pack("=I", 7)])[0])


def test_idle_ports_are_given_back_and_no_others() -> None:
    table = Table()
    table.usages[struct.pack("=I", 7)] = abi.USAGE.pack(4097, 5, 6)
    table.row(80, 40000, listening=1)
    table.row(81, 40001)
    table.row(82, 30000, lasting=False)
    table.row(83, 9000, exposed=1)
    assert table.holdings.give_back(100.0) == []
    assert table.count() == 3, "what BPF counted beyond the limit is forgotten"
    assert table.holdings.give_back(100.0 + IDLE - 1) == []
    assert table.holdings.give_back(100.0 + IDLE + PERIOD) == [40001]
    assert table.count() == 2 and len(table.ports) == len(table.reals) == 3
    assert abi.USAGE.unpack(table.usages[struct.pack("=I", 7)]) == (2, 5, 6)


def test_a_port_that_was_used_meanwhile_is_idle_anew() -> None:
    table = Table()
    table.row(81, 40001)
    table.holdings.give_back(0.0)
    table.row(81, 40001, listening=1)
    table.holdings.give_back(30.0)
    table.row(81, 40001)
    assert table.holdings.give_back(IDLE) == []
    assert table.holdings.give_back(IDLE + 2) == [], "not read more often than each PERIOD"
    assert table.holdings.give_back(2 * IDLE + PERIOD) == [40001]


def test_a_port_on_which_somebody_begins_to_listen_just_then_stays() -> None:
    """Between the look and the taking: a program counts up in the row."""
    table = Table()
    table.usages[struct.pack("=I", 7)] = abi.USAGE.pack(1, 0, 0)
    table.row(81, 40001)
    table.holdings.give_back(0.0)
    look = table.ports.items

    def items() -> list[tuple[bytes, bytes]]:
        seen = look()
        table.row(81, 40001, listening=1)
        return seen

    table.ports.items = items  # type: ignore[method-assign]
    assert table.holdings.give_back(IDLE + PERIOD) == []
    assert table.count() == 1 and len(table.reals) == 1
    ((_, value),) = look()
    assert abi.PORT.unpack(value)[3] == 1
