"""Messages from the Istio agent's process to the daemon: msgpack in frames.  Pure.

A frame is four bytes of length (big-endian) and that many bytes of one `Report`.  The daemon answers
each report that changes the table with one byte, once it is in force.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

import msgspec

from appswitch.errors import InvalidInput
from appswitch.model import Mesh, Outbound, VService
from appswitch.policy import InboundPolicy, check

VERSION: Final = 1
HEADER: Final = 4
MAX_REPORT: Final = 256 * 1024 * 1024
"""Bytes; 10,000 services of 10 backends are about 8 MB."""
TAKEN: Final = b"+"

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


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of the table, of what is not done, or an event for the log."""

    version: int = 0
    change: Change | None = None
    unsupported: tuple[tuple[str, str, str, str], ...] | None = None
    """All that is asked for and not done, as `resource_unsupported.Row`; None: as before."""
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
_decoder = msgspec.msgpack.Decoder(Report, dec_hook=_decode_hook)


def frame(report: Report) -> bytes:
    """A whole frame."""
    data = _encoder.encode(report)
    return len(data).to_bytes(HEADER, "big") + data


def length(header: bytes) -> int:
    """Of the report that follows.  Raises InvalidInput."""
    size = int.from_bytes(header, "big")
    if size > MAX_REPORT:
        raise InvalidInput(f"a report of {size} bytes; the most is {MAX_REPORT}")
    return size


def decode(data: bytes) -> Report:
    """A frame's report.  Raises InvalidInput."""
    try:
        report = _decoder.decode(data)
        check((report.change.policies if report.change else None) or ())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a report of the Istio agent: {error}") from error
    if report.version != VERSION:
        raise InvalidInput(f"report of version {report.version}, this daemon knows {VERSION}")
    return report


class Differ:
    """The sender's memory: what changed since the last report."""

    def __init__(self) -> None:
        self._sent: dict[str, VService] | None = None
        self._last = Mesh(policies=None, outbound=None)

    def change(self, mesh: Mesh) -> Change:
        """From the table of the last call to this one."""
        before, now = self._sent or {}, {each.name: each for each in mesh.vservices}
        change = Change(
            whole=self._sent is None,
            put=tuple(each for name, each in now.items() if before.get(name) != each),
            gone=tuple(name for name in before if name not in now),
            names=None if mesh.names == self._last.names else mesh.names,
            policies=None if mesh.policies == self._last.policies else mesh.policies,
            outbound=None if mesh.outbound == self._last.outbound else mesh.outbound,
        )
        self._sent, self._last = now, mesh
        return change


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
