"""From a host name to questions for a name server, and from its reply to addresses.  Pure.

Only what a client of addresses needs: the A records of an answer and how long they may be kept.  Names in the
answer are skipped, not followed: the server asked is trusted for its whole answer section, and
`dns_message.is_reply` has seen that it answers this question.

Sources: RFC 1035 (format), 2181 (TTLs), 6761 (localhost), hosts(5), resolv.conf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from appswitch.agent.dns_message import MAX_TCP, Forward, Qtype, Rcode, reply_rcode, skip_name
from appswitch.agent.resolv_conf import ResolvConf
from appswitch.errors import InvalidInput

MAX_ANSWERS = 1000
"""Records of a reply that are looked at."""
_LOCALHOST = (IPv4Address("127.0.0.1"),)
_RECURSION = 0x0100
_IN = 1

Hosts = Mapping[str, tuple[IPv4Address, ...]]
"""Names of a hosts file, lower case."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a reply says of a name."""

    exists: bool
    addresses: tuple[IPv4Address, ...] = ()
    ttl: float | None = None
    """Seconds that all of it may be kept; None: it is not known."""


def parse_hosts(text: str) -> Hosts:
    """Read a hosts file; lines that are not understood, and IPv6 addresses, are skipped."""
    found: dict[str, tuple[IPv4Address, ...]] = {}
    for line in text.splitlines():
        first, *names = line.partition("#")[0].split() or [""]
        try:
            address = IPv4Address(first)
        except AddressValueError:
            continue
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), address)
    return found


def local(name: str, hosts: Hosts) -> tuple[IPv4Address, ...]:
    """Addresses that no server needs to be asked for; none: ask."""
    if name in hosts:
        return hosts[name]
    return _LOCALHOST if name == "localhost" or name.endswith(".localhost") else ()


def candidates(name: str, conf: ResolvConf) -> tuple[str, ...]:
    """The full names to ask for, in this order, as the resolver of the C library does."""
    full = name.rstrip(".")
    if full != name:
        return (full,)
    ndots = next((option[6:] for option in conf.options if option.startswith("ndots:")), "1")
    searched = tuple(f"{full}.{suffix.strip('.')}" for suffix in conf.search if suffix.strip("."))
    dots = int(ndots) if ndots.isascii() and ndots.isdigit() and len(ndots) < 4 else 1
    return (full, *searched) if full.count(".") >= dots else (*searched, full)


def question(name: str) -> Forward:
    """Ask for the IPv4 addresses of a full name.  Raises InvalidInput: it can be no host's."""
    labels = name.split(".")
    if not name.isascii() or not all(0 < len(label) <= 63 for label in labels) or len(name) > 253:
        raise InvalidInput(f"{name!r} is no host name: labels of 1 to 63 ASCII characters, 253 in all")
    wire = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    head = struct.pack("!HHHHHH", 0, _RECURSION, 1, 0, 0, 0)
    query = head + wire + struct.pack("!HH", Qtype.A, _IN)
    return Forward(query, name, len(query), MAX_TCP)


def decode_reply(asked: Forward, reply: bytes) -> Found:
    """What a reply to `question` says.  Raises InvalidInput: nothing about the name, or no DNS packet."""
    code = reply_rcode(reply) if len(reply) >= 12 else Rcode.FORMERR
    if code == Rcode.NXDOMAIN:
        return Found(False)
    if code != Rcode.NOERROR:
        name = Rcode(code).name if code in set(Rcode) else f"code {code}"
        raise InvalidInput(f"no name server gave an answer ({name})")
    questions, count = struct.unpack_from("!HH", reply, 4)
    if questions != 1 or count > MAX_ANSWERS:
        raise InvalidInput(f"a reply with {questions} questions and {count} answers")
    addresses, ttls, offset = [], [], asked.question_end
    for _ in range(count):
        offset = skip_name(reply, offset)
        if offset + 10 > len(reply):
            raise InvalidInput("a reply that is cut off in a record")
        rtype, rclass, ttl, length = struct.unpack_from("!HHIH", reply, offset)
        data = reply[offset + 10 : offset + 10 + length]
        offset += 10 + length
        if len(data) < length or (rtype == Qtype.A and length != 4):
            raise InvalidInput("a reply that is cut off in a record's data")
        # RFC 2181 8: the uppermost bit set means 0.
        ttls.append(0 if ttl >= 1 << 31 else ttl)
        if (rtype, rclass) == (Qtype.A, _IN):
            addresses.append(IPv4Address(data))
    return Found(True, tuple(addresses), float(min(ttls)) if addresses else None)
