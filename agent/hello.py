"""Decodes what a launcher asks for.  Pure; every function raises only `InvalidInput`.

The launcher passes its flags on as they stood on the command line, so that the rules for them are
here and in one language.  See `launch.py` for the dialogue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Final

import msgspec

from appswitch.agent import settings_parse
from appswitch.errors import InvalidInput
from appswitch.model import DEFAULT_LABELS, Class, Expose, Labels

MAX_HELLO: Final = 65_536
"""Bytes of the longest hello."""
VERSION: Final = 1
MAX_LABELS: Final = 64
MAX_LABELS_SIZE: Final = 8192
"""Characters, of all together."""

_PART = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_PART}(\.{_PART})*")
_IDENTITY = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_INTERFACE = re.compile(r"[^\s/:\x00]{1,15}")
_PORT = re.compile(r"[0-9]{1,5}")


class Hello(msgspec.Struct, frozen=True):
    """The launcher's first message, JSON; texts are flags as given, "" where not given."""

    version: int
    command: list[str]
    cwd: str = "/"
    ip: str = ""
    name: str = ""
    labels: str = ""
    expose: list[str] = []
    user: str = ""
    interface: str = ""
    new_netns: bool = True
    dns_override: bool = True
    namespace: str = ""
    service_account: str = ""
    lonely: bool = False
    kept: list[int] = []
    closed: list[int] = []
    connect_wait: str = ""
    nameservers: list[str] = []
    ids: Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=0xFFFF_FFFF)]], msgspec.Meta(max_length=2)] = []


@dataclass(frozen=True, slots=True)
class Request:
    """A valid hello."""

    command: tuple[str, ...]
    app_class: Class
    ip: IPv4Address | None
    """None: made from the name, or the node's."""
    name: str
    exposes: tuple[Expose, ...]
    user: str
    """User name or uid to run as, "" for the caller's; whether it exists is the daemon's to see."""
    interface: str
    new_netns: bool
    dns_override: bool
    lonely: bool = False
    """The app stays in the caller's network namespace, where nothing but loopback is up."""
    inherited: str = ""
    """Sockets of the caller's that the launcher kept or closed, as text; empty: there were none."""
    connect_wait: float | None = None
    """Seconds; None: as the daemon's setting says."""
    nameservers: tuple[IPv4Address, ...] = ()
    """Of the resolv.conf that the program will see, where ours cannot be shown."""
    ids: tuple[int, int] | None = None
    """uid and gid of `user` where the launcher is, in a container; None: as the node knows it."""


_decoder = msgspec.json.Decoder(Hello)


def decode(message: bytes) -> Request:
    """A launcher's first message."""
    if len(message) > MAX_HELLO:
        raise InvalidInput(f"hello of more than {MAX_HELLO} bytes")
    try:
        hello = _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"hello does not decode: {error}") from error
    if hello.version != VERSION:
        raise InvalidInput(f"hello has version {hello.version}, this daemon speaks {VERSION}")
    if not hello.command or not hello.command[0]:
        raise InvalidInput("no command to run")
    if any("\x00" in word for word in hello.command):
        raise InvalidInput("the command holds a NUL byte")
    if hello.interface and not hello.new_netns:
        raise InvalidInput("--interface needs a namespace of its own, but --new-netns=false is given")
    return Request(
        command=tuple(hello.command),
        app_class=Class(
            labels=parse_labels(hello.labels),
            namespace=parse_identity("--namespace", hello.namespace),
            service_account=parse_identity("--service-account", hello.service_account),
        ),
        ip=parse_ip("--ip", hello.ip) if hello.ip else None,
        name=parse_name("--name", hello.name) if hello.name else "",
        exposes=tuple(parse_expose(text) for text in hello.expose),
        user=_user(hello.user),
        interface=_interface(hello.interface),
        new_netns=hello.new_netns,
        dns_override=hello.dns_override,
        lonely=hello.lonely,
        inherited=_inherited(hello.kept, hello.closed),
        connect_wait=_wait(hello.connect_wait),
        nameservers=_nameservers(hello.nameservers),
        ids=(hello.ids[0], hello.ids[1]) if len(hello.ids) == 2 else None,
    )


def parse_labels(text: str) -> Labels:
    """`role=test,zone=a`; empty: the default `zone=default`.  Any characters but ',' and '='."""
    if not text:
        return DEFAULT_LABELS
    pairs: dict[str, str] = {}
    if text.count(",") >= MAX_LABELS or len(text) > MAX_LABELS_SIZE:
        raise InvalidInput(f"--labels: more than {MAX_LABELS} labels or {MAX_LABELS_SIZE} characters")
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key or "=" in value:
            raise InvalidInput(f"--labels {text!r}: {part!r} is no KEY=VALUE")
        if pairs.setdefault(key, value) != value:
            raise InvalidInput(f"--labels {text!r}: {key!r} has two values")
    return Labels(frozenset(pairs.items()))


def parse_ip(flag: str, text: str) -> IPv4Address:
    """An address that a service can have: not loopback, link-local, multicast or 0.x."""
    try:
        address = IPv4Address(text)
    except (AddressValueError, ValueError):
        raise InvalidInput(f"{flag} {text!r} is no IPv4 address") from None
    if address.is_loopback or address.is_link_local or address.is_multicast or address.packed[0] in (0, 255):
        raise InvalidInput(f"{flag} {text}: is loopback, link-local, multicast or 0.x")
    return address


def parse_name(flag: str, text: str) -> str:
    """A DNS name, in lower case as DNS compares it; '_' is allowed, as in many service names."""
    if len(text) > 200 or not _NAME.fullmatch(text):
        raise InvalidInput(f"{flag} {text!r} is no DNS name (letters, digits, '-', '_'; parts of at most 63)")
    return text.lower()


def parse_port(flag: str, text: str) -> int:
    """A port from 1 to 65535."""
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise InvalidInput(f"{flag}: {text!r} is no port from 1 to 65535")
    return int(text)


def parse_expose(text: str) -> Expose:
    """`internal:host` or `internal:IP:host` (manual 4.2.4); 0.0.0.0 stands for every node."""
    parts = text.split(":")
    flag = f"--expose {text!r}"
    if len(parts) not in (2, 3):
        raise InvalidInput(f"{flag} is neither PORT:HOST-PORT nor PORT:NODE-IP:HOST-PORT")
    host_ip = None
    if len(parts) == 3:
        try:
            host_ip = IPv4Address(parts[1])
        except (AddressValueError, ValueError):
            raise InvalidInput(f"{flag}: {parts[1]!r} is no IPv4 address") from None
    return Expose(parse_port(flag, parts[0]), parse_port(flag, parts[-1]), host_ip)


def _inherited(kept: list[int], closed: list[int]) -> str:
    """`kept 0,1; closed 7`, of descriptors."""
    parts = [(word, numbers[:64]) for word, numbers in (("kept", kept), ("closed", closed)) if numbers]
    return "; ".join(f"{word} {','.join(map(str, numbers))}" for word, numbers in parts)


def _wait(text: str) -> float | None:
    """`10s`, as `ax daemon --connect-wait` has it."""
    if not text:
        return None
    try:
        return settings_parse.wait(text)
    except ValueError as reason:
        raise InvalidInput(f"--connect-wait {text!r} {reason}") from None


def _nameservers(texts: list[str]) -> tuple[IPv4Address, ...]:
    """Those that resolvers use: the first three (resolv.conf(5)); 0.0.0.0 is this host."""
    found = []
    for text in texts[:3]:
        try:
            address = IPv4Address(text)
        except (AddressValueError, ValueError):
            raise InvalidInput(f"nameserver {text!r} is no IPv4 address") from None
        found.append(address if int(address) else IPv4Address("127.0.0.1"))
    return tuple(dict.fromkeys(found))


def parse_identity(flag: str, text: str) -> str:
    """A Kubernetes name, or nothing."""
    if text and not _IDENTITY.fullmatch(text):
        raise InvalidInput(f"{flag} {text!r} is no Kubernetes name (lower-case letters, digits, '-', '.')")
    return text


def _user(text: str) -> str:
    """A user name or uid that a line of the reply can hold."""
    if any(c.isspace() or c in ":\x00" for c in text) or len(text) > 256:
        raise InvalidInput(f"--user {text!r} is no user name or uid")
    return text


def _interface(text: str) -> str:
    """A name as Linux allows for interfaces (IFNAMSIZ 16), but the one that exists already."""
    if text and (not _INTERFACE.fullmatch(text) or text in (".", "..", "lo")):
        raise InvalidInput(f"--interface {text!r} is no interface name (at most 15 bytes, not 'lo')")
    return text
