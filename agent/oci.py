"""Decodes what OCI runtimes send: a container's state, and the state with which a seccomp descriptor comes.

Pure; every function raises only InvalidInput.  Source: runtime-spec v1.0.2, runtime.md ("State") and
config-linux.md ("The Container Process State").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from appswitch.agent import hello
from appswitch.errors import InvalidInput

MAX_STATE: Final = 1 << 20
"""Bytes: annotations of Kubernetes may be long."""
PREFIX: Final = "appswitch.io/"
WISHES: Final = ("ip", "name", "labels", "namespace", "service-account")
"""Annotations after the prefix; the same as the flags of `ax run` and `ax attach`."""
SECCOMP: Final = "seccompFd"


class State(msgspec.Struct, frozen=True):
    """Of a container's state, what we need."""

    id: str = ""
    pid: int = 0
    status: str = ""
    annotations: dict[str, str] | None = None


class _ProcessState(msgspec.Struct, frozen=True):
    fds: list[str]
    pid: int
    state: State
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Notified:
    """A process of a container whose socket() calls are trapped."""

    container: str
    pid: int
    descriptor: int
    """Which of the descriptors that came along is seccomp's."""
    wishes: Mapping[str, str]


_state = msgspec.json.Decoder(State)
_process_state = msgspec.json.Decoder(_ProcessState)


def decode_state(data: bytes) -> State:
    """A hook's standard input."""
    try:
        state = _state.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"state of a container: {error}") from error
    if not 0 < state.pid < 1 << 22:
        raise InvalidInput(f"state of container {state.id!r}: process {state.pid} (status {state.status!r})")
    return state


def is_whole(data: bytes) -> bool:
    """Whether it is a JSON text to its end."""
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def decode_process_state(data: bytes) -> Notified:
    """What runc writes to `listenerPath`; metadata is `listenerMetadata`: words KEY=VALUE."""
    try:
        found = _process_state.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"state of a container's process: {error}") from error
    if found.fds.count(SECCOMP) != 1:
        raise InvalidInput(f"state of a container's process: descriptors {found.fds}, not one {SECCOMP}")
    if not 0 < found.pid < 1 << 22:
        raise InvalidInput(f"state of container {found.state.id!r}: process {found.pid}")
    wishes = _words(found.metadata) | wishes_of(found.state)
    return Notified(found.state.id, found.pid, found.fds.index(SECCOMP), wishes)


def wishes_of(state: State) -> dict[str, str]:
    """The annotations that are for us, without their prefix; empty: none, so leave it alone."""
    found = {}
    for key, value in (state.annotations or {}).items():
        if key.startswith(PREFIX):
            found[_known(key.removeprefix(PREFIX), key)] = value
    return found


def request(notified: Notified) -> hello.Request:
    """As if the container's command had `ax run` before it, by the same rules."""
    wish = notified.wishes.get
    said = hello.Hello(
        hello.VERSION,
        [notified.container or "container"],
        ip=wish("ip", ""),
        name=wish("name", ""),
        labels=wish("labels", ""),
        namespace=wish("namespace", ""),
        service_account=wish("service-account", ""),
        lonely=True,
    )
    return hello.decode(msgspec.json.encode(said))


def _words(text: str) -> dict[str, str]:
    found = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(f"listenerMetadata: {word!r} is no KEY=VALUE")
        found[_known(key, key)] = value
    return found


def _known(key: str, shown: str) -> str:
    if key not in WISHES:
        raise InvalidInput(f"{shown!r} is unknown: known are {', '.join(WISHES)}")
    return key
