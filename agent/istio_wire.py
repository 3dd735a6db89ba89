"""Messages between the Istio agent's process and the daemon: msgpack in frames.  Pure.

A frame is four bytes of length (big-endian) and that many bytes of one `Report` (to the daemon) or one
`Order` (from it).  The daemon says which change of the table is in force, and asks; the agent answers a
question in between whatever else it does, and either side goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar

import msgspec

from appswitch.agent.resource_unsupported import Changed, Row
from appswitch.errors import InvalidInput
from appswitch.model import Mesh, Outbound, VService
from appswitch.policy import InboundPolicy, check
from appswitch.xds.resources import Unsupported

VERSION: Final = 2
HEADER: Final = 4
MAX_REPORT: Final = 256 * 1024 * 1024
"""Bytes; 10,000 services of 10 backends are about 8 MB."""
MAX_ORDER: Final = 65_536
"""Bytes."""

Names = tuple[tuple[str, tuple[IPv4Address, ...]], ...]


class Change(msgspec.Struct, frozen=True):
    """How the table differs from the one of the report before."""

    whole: bool
    """There was none before: what is not in `put` is not there."""
    put: tuple[VService, ...] = ()
    """New ones and changed ones."""
    gone: tuple[str, ...] = ()
    names: Names | None = None
    """All names; None: as before."""
    policies: tuple[InboundPolicy, ...] | None = None
    """Likewise, as the next."""
    outbound: Outbound | None = None
    number: int = 0
    """1 for the first of this process, and so on."""


class PageWanted(msgspec.Struct, frozen=True, tag="page"):
    """Some rows of `ax get KIND`, as many as fit well into a message."""

    kind: str
    after: str = ""
    """What the page before gave as `next`."""


class OriginWanted(msgspec.Struct, frozen=True, tag="origin"):
    """Where the decision about a virtual IP and port comes from."""

    address: IPv4Address
    port: int


Wanted = PageWanted | OriginWanted


class Question(msgspec.Struct, frozen=True):
    """The daemon asks."""

    number: int
    """The answer has it, too."""
    wanted: Wanted


class Answer(msgspec.Struct, frozen=True):
    """What was asked for."""

    number: int = 0
    """Of the question."""
    data: bytes = b""
    """JSON, as REST says it; of a page the rows without the brackets.  Of an origin `null`: there is none."""
    next: str = ""
    """Of a page: there is more, after this."""
    error: str = ""
    """Why there is none."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """From the daemon."""

    version: int = 0
    taken: int = 0
    """Number of the change that is in force now."""
    question: Question | None = None


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of the table or of what is not done, an answer, an event; or nothing: it can be asked now."""

    version: int = 0
    change: Change | None = None
    unsupported: Changed | None = None
    """Of what is asked for and not done; None: as before."""
    answer: Answer | None = None
    event: str = ""
    fields: dict[str, str | int | float | bool | None] = {}


def _encode_hook(value: Any) -> Any:
    if isinstance(value, IPv4Address):
        return int(value)
    if isinstance(value, IPv4Network):
        return int(value.network_address), value.prefixlen
    raise NotImplementedError(type(value))


def _decode_hook(kind: type[Any], value: Any) -> Any:
    if kind is IPv4Address and isinstance(value, int):
        return IPv4Address(value)
    if kind is IPv4Network and isinstance(value, list) and list(map(type, value)) == [int, int]:
        return IPv4Network(tuple(value))
    raise ValueError(f"expected {kind.__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_reports = msgspec.msgpack.Decoder(Report, dec_hook=_decode_hook)
_orders = msgspec.msgpack.Decoder(Order, dec_hook=_decode_hook)
Message = TypeVar("Message", Report, Order)


def frame(message: Report | Order) -> bytes:
    """A whole frame."""
    data = _encoder.encode(message)
    return len(data).to_bytes(HEADER, "big") + data


def length(header: bytes, most: int = MAX_REPORT) -> int:
    """Of the message that follows.  Raises InvalidInput."""
    size = int.from_bytes(header, "big")
    if size > most:
        raise InvalidInput(f"a message of {size} bytes; the most is {most}")
    return size


def decode(data: bytes) -> Report:
    """What the agent says.  Raises InvalidInput."""
    return _decoded(_reports, data, "a report of the Istio agent")


def decode_order(data: bytes) -> Order:
    """What the daemon says.  Raises InvalidInput."""
    return _decoded(_orders, data, "an order of the daemon")


def _decoded(decoder: msgspec.msgpack.Decoder[Message], data: bytes, what: str) -> Message:
    try:
        message = decoder.decode(data)
        if isinstance(message, Report) and message.change is not None:
            check(message.change.policies or ())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not {what}: {error}") from error
    if message.version != VERSION:
        raise InvalidInput(f"{what} has version {message.version}; {VERSION} is known here")
    return message


def numbered(number: int, answer: Answer) -> Answer:
    """The answer to the question of that number."""
    return msgspec.structs.replace(answer, number=number)


class Differ:
    """The sender's memory: what changed since the last report."""

    def __init__(self) -> None:
        self._sent: dict[str, VService] | None = None
        self._last = Mesh(policies=None, outbound=None)
        self._number = 0
        self._undone: tuple[Unsupported, ...] | None = None

    def change(self, mesh: Mesh) -> Change:
        """From the table of the last call to this one."""
        self._number += 1
        before, now = self._sent or {}, {each.name: each for each in mesh.vservices}
        change = Change(
            whole=self._sent is None,
            put=tuple(each for name, each in now.items() if before.get(name) != each),
            gone=tuple(name for name in before if name not in now),
            names=None if mesh.names == self._last.names else mesh.names,
            policies=None if mesh.policies == self._last.policies else mesh.policies,
            outbound=None if mesh.outbound == self._last.outbound else mesh.outbound,
            number=self._number,
        )
        self._sent, self._last = now, mesh
        return change

    def unsupported(self, items: tuple[Unsupported, ...]) -> Changed:
        """The same for what is not done: of thousands of services nearly all of it stays as it was."""
        before, now = set(self._undone or ()), set(items)
        whole, self._undone = self._undone is None, items
        return Changed(whole, _rows(now - before), _rows(before - now))


def _rows(items: Iterable[Unsupported]) -> tuple[Row, ...]:
    return tuple((item.field, item.resource, item.object, item.instead) for item in items)


class Merger:
    """The receiver's memory: the whole table after each change."""

    def __init__(self) -> None:
        self._have: dict[str, VService] = {}
        self._rest = Mesh(policies=None, outbound=None)

    def merge(self, change: Change) -> Mesh:
        """The whole table."""
        if change.whole:
            self._have, self._rest = {}, Mesh(policies=None, outbound=None)
        for name in change.gone:
            self._have.pop(name, None)
        self._have |= {each.name: each for each in change.put}
        self._rest = Mesh(
            tuple(self._have.values()),
            self._rest.names if change.names is None else change.names,
            self._rest.policies if change.policies is None else change.policies,
            self._rest.outbound if change.outbound is None else change.outbound,
        )
        return self._rest
