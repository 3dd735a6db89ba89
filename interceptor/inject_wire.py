"""Messages between daemon and holder: a JSON object in a SOCK_SEQPACKET packet, descriptors by SCM_RIGHTS.

A request holds `version` and exactly one of `add`, `nest`, `remove`, `list`, `adopt`.  A reply holds
`version` and either `error` or the answer.  A reply to `list` with `after` 0 carries the in-flight memfd
first; every one carries a notify descriptor for each app named, in the same order.
"""

from __future__ import annotations

import socket
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Final

import msgspec

from appswitch.errors import (
    AppSwitchError,
    Conflict,
    Exhausted,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)

VERSION: Final = 1
REVISION: Final = 2
"""Of the holder's code: a daemon replaces a holder that an earlier release left running."""
SOCKET_NAME: Final = "holder.sock"
MAX_MESSAGE: Final = 65_536
"""Bytes of one packet, either way."""
PAGE: Final = 200
"""Apps in one reply to `list`: the kernel passes at most 253 descriptors at once (SCM_MAX_FD)."""

Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
AppId = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF_FFFF)]


class AppRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"class_index": "class"}):
    """An app as the programs know it; its sockets are marked with exactly this."""

    id: AppId
    class_index: Word
    ip: str

    @property
    def address(self) -> IPv4Address:
        """`ip`, parsed.  Raises InvalidInput."""
        try:
            return IPv4Address(self.ip)
        except AddressValueError as error:
            raise InvalidInput(f"ip {self.ip!r}: {error}") from error


class Nest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`app` runs inside `filter`, an app that was added or will be, whose filter traps its socket() too."""

    filter: AppId
    app: AppRecord
    cgroup: str
    """Its path below the cgroup v2 mount: who calls from there is `app`."""


class Remove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Forget an app, added or nested."""

    id: AppId


class List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name the apps with an id above `after`, in ascending order, at most PAGE of them."""

    after: Word = 0


class Adopt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answer the calls that a dead holder left in the memfd that comes along."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the daemon asks; exactly one member beside `version` is set."""

    version: int
    add: AppRecord | None = None
    nest: Nest | None = None
    remove: Remove | None = None
    list: List | None = None
    adopt: Adopt | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a request was refused: `code` is one of ERRORS."""

    code: str
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The holder's answer."""

    version: int = VERSION
    error: Failure | None = None
    pid: int = 0
    """Of the holder."""
    revision: int = 0
    apps: tuple[AppRecord, ...] = ()
    more: bool = False
    """Ask again after the last id."""
    answered: int = 0
    """Calls answered for a dead holder."""


ERRORS: Final[dict[str, type[AppSwitchError]]] = {
    "malformed": InvalidInput,
    "version": Unsupported,
    "not-found": NotFound,
    "full": Exhausted,
    "refused": Conflict,
}

_encoder = msgspec.json.Encoder()
_requests = msgspec.json.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """One packet's bytes.  `version` is always written."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> Request:
    """Raises InvalidInput: not JSON, wrong types, unknown members, not exactly one question, bad address.

    The version is left to the caller, who has its own answer to it.
    """
    try:
        request = _requests.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a request to the holder: {error}") from error
    parts = (request.add, request.nest, request.remove, request.list, request.adopt)
    if sum(part is not None for part in parts) != 1:
        raise InvalidInput("a request needs exactly one of add, nest, remove, list, adopt")
    record = request.nest.app if request.nest is not None else request.add
    if record is not None:
        record.address  # noqa: B018  raises
    return request


def decode_reply(data: bytes) -> Reply:
    """Raises InvalidInput."""
    try:
        reply = _replies.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not a reply of the holder: {error}") from error
    for app in reply.apps:
        app.address  # noqa: B018  raises
    return reply


def error_of(failure: Failure) -> AppSwitchError:
    """The typed error a Failure stands for."""
    return ERRORS.get(failure.code, Unavailable)(f"holder: {failure.message}")


def receive(sock: socket.socket) -> tuple[bytes, list[int], bool]:
    """One packet: bytes (empty: the other side is gone), descriptors (CLOEXEC), and whether it was whole.

    The caller owns the descriptors.  Raises OSError, TimeoutError.
    """
    data, descriptors, flags, _ = socket.recv_fds(sock, MAX_MESSAGE, 253, socket.MSG_CMSG_CLOEXEC)
    return data, list(descriptors), not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
