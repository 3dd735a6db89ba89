"""Text to setting, one function a kind of value; each raises ValueError with the reason."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from math import ceil
from pathlib import Path

from appswitch.agent.istio_options import META_KEY

_WORD = re.compile(r"[^\s~,=]+")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_PART = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_PART}(\.{_PART})*")
_NUMBER = re.compile(r"[0-9]{1,9}")

_SWITCHES = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)


def switch(text: str) -> bool:
    """`true` or `false`, and their usual synonyms."""
    try:
        return _SWITCHES[text.lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def word(text: str) -> str:
    """An IP address or an interface name; whether it exists is seen when the daemon starts."""
    if not _WORD.fullmatch(text):
        raise ValueError("is no IP address or interface name")
    return text


def node_name(text: str) -> str:
    """A node's or a cluster's name: it becomes a column, a label and part of DNS names."""
    if len(text) > 253 or not _NAME.fullmatch(text):
        raise ValueError("is no name (letters, digits, '-', '_', '.', at most 253)")
    return text


def domain(text: str) -> str:
    """A DNS suffix, a dot at its end dropped, in lower case."""
    text = text.removesuffix(".").lower()
    if len(text) > 200 or not _DOMAIN.fullmatch(text):
        raise ValueError("is no domain name")
    return text


def driver(text: str) -> str:
    """Only `kernel` can be chosen yet."""
    if text in ("user", "ptrace"):
        raise ValueError("comes with a later release; this one has the kernel driver")
    if text != "kernel":
        raise ValueError("is no driver (kernel, user or ptrace)")
    return text


def number(text: str, low: int, high: int) -> int:
    """A decimal number in low..high."""
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise ValueError(f"is no number from {low} to {high}")
    return int(text)


def claims(text: str) -> str:
    """`own` or `any`."""
    if text not in ("own", "any"):
        raise ValueError("is neither own nor any")
    return text


def count(text: str) -> int:
    """How many of something there may be."""
    return number(text, 0, 1_000_000)


def port_or_off(text: str) -> int:
    """A TCP port, or 0 for none."""
    return number(text, 0, 65535)


def port_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """`4000,6000-8000` as inclusive ranges in order, overlaps merged."""
    ranges = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            low, high = number(first, 1, 65535), number(last or first, 1, 65535)
        except ValueError as wrong:
            raise ValueError(f"has {part.strip()!r}, which {wrong}") from None
        if low > high:
            raise ValueError(f"has {part.strip()!r}, whose end is before its start")
        ranges.append((low, high))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|)")
_UNITS = {"ms": 1, "s": 1000, "": 1000, "m": 60_000}
LONGEST_WAIT = 600.0
"""Seconds.  The kernel sends a SYN 127 times more at most: the pauses between grow to five seconds."""


def wait(text: str) -> float:
    """`10s`, `500ms`, `2m`, plain seconds, or 0 for none: seconds, rounded up to tenths."""
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError("is no time (10s, 500ms, 2m, or seconds)")
    seconds = ceil(float(found[1]) * _UNITS[found[2]] / 100) / 10
    if seconds > LONGEST_WAIT:
        raise ValueError(f"is longer than {LONGEST_WAIT / 60:g}m")
    return seconds


def address(text: str) -> IPv4Address:
    """An IPv4 address."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise ValueError(f"has {text!r}, which is no IPv4 address") from None


def dns_servers(text: str) -> tuple[tuple[IPv4Address, int], ...]:
    """`127.0.0.1:5533,8.8.8.8` as (address, port)."""
    servers = []
    for part in text.split(","):
        host, colon, port = part.strip().partition(":")
        try:
            servers.append((address(host), number(port, 1, 65535) if colon else 53))
        except ValueError as wrong:
            reason = str(wrong)
            raise ValueError(reason if reason.startswith("has") else f"has {part!r}: port {reason}") from None
    return tuple(servers)


def vip_range(text: str) -> IPv4Network:
    """A network of 256 addresses (DNS has one of the last 256) to 2^24."""
    try:
        network = IPv4Network(text)
    except ValueError as wrong:
        raise ValueError(f"is no IPv4 network ({wrong})") from None
    if not 8 <= network.prefixlen <= 24:
        raise ValueError("must have a prefix from /8 to /24")
    return network


def host_port(text: str) -> str:
    """`HOST:PORT` of a server to dial."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or any(c.isspace() for c in text):
        raise ValueError("is no HOST:PORT")
    try:
        number(port, 1, 65535)
    except ValueError as wrong:
        raise ValueError(f"has the port {port!r}, which {wrong}") from None
    return text


def istio_mode(text: str) -> str:
    """`delta` or `sotw`."""
    if text not in ("delta", "sotw"):
        raise ValueError("is neither delta nor sotw")
    return text


def locality(text: str) -> tuple[str, str, str]:
    """`REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`."""
    parts = text.split("/")
    if len(parts) > 3 or not all(parts) or any(char.isspace() for char in text):
        raise ValueError("is no REGION/ZONE/SUBZONE")
    region, zone, sub_zone = (*parts, "", "")[:3]
    return region, zone, sub_zone


def metadata(text: str) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE,…`, all of it text, as Istiod wants it."""
    pairs = []
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if key == "LABELS":
            raise ValueError("has LABELS, which is no text but an object")
        if not equals or not META_KEY.fullmatch(key):
            raise ValueError(f"has {part.strip()!r}, which is no KEY=VALUE")
        pairs.append((key, value))
    return tuple(pairs)


def istio_node_id(text: str) -> str:
    """Istio's `TYPE~IP~ID~DOMAIN`."""
    parts = text.split("~")
    if len(parts) != 4 or not all(parts) or "." not in parts[2] or any(c.isspace() for c in text):
        raise ValueError("is no xDS node id (TYPE~IP~POD.NAMESPACE~DOMAIN)")
    return text


def directory(text: str) -> Path:
    """A directory; made absolute, so that a later chdir changes nothing."""
    path = Path(text).absolute()
    # sun_path holds 108 bytes; the longest name below the directory is `daemon.sock`.
    if len(bytes(path)) > 90:
        raise ValueError("is longer than the 90 bytes that leave room for a Unix socket's name")
    return path


def file(text: str) -> Path:
    """A file's path, made absolute."""
    return Path(text).absolute()
