"""DNS packets: requests read, replies of other servers checked.  Pure.

Requests are read by hand, byte by byte: one holds one question and perhaps one OPT record, so nothing
needs to follow a compression pointer (which dnslib does recursively, at the sender's choice).

Sources: RFC 1035 (format), 5452 (accepting replies), 6891 (EDNS0), 9619 (exactly one question).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from dnslib import DNSHeader, DNSLabel, DNSQuestion

from appswitch.errors import InvalidInput

MIN_UDP, MAX_UDP, MAX_TCP = 512, 4096, 65535
"""Bytes of an answer: by UDP what the requester allows between the first two, by TCP the last."""
MAX_RECORDS = 16
"""Records beside the question that a request may carry; real ones have one (OPT) or two (TSIG)."""


class Rcode(IntEnum):
    """Response codes (RFC 1035 4.1.1, 6891 9)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Qtype(IntEnum):
    """The types that are treated in a way of their own."""

    A = 1
    NS = 2
    SOA = 6
    PTR = 12
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


@dataclass(frozen=True, slots=True)
class Forward:
    """The name is not ours: another server's reply is to be sent."""

    query: bytes
    name: str
    question_end: int
    """Offset behind the question: what a reply must repeat (case may differ) begins at 12 and ends here."""
    limit: int
    """Bytes the requester takes."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's parts that matter."""

    id: int
    flags: int
    """The header's second word, as received."""
    labels: tuple[bytes, ...]
    """As asked, upper and lower case kept: resolvers compare the reply's with it."""
    qtype: int
    qclass: int
    end: int
    payload: int | None = None
    """What EDNS0 allows by UDP; None: the request had no OPT record."""
    version: int = 0
    dnssec_ok: bool = False

    @property
    def recursion(self) -> bool:
        """RD: the requester wants us to ask others."""
        return bool(self.flags & 0x0100)

    @property
    def name(self) -> str:
        """Lower-case text; bytes that are no ASCII as latin-1: they match no name of ours."""
        return b".".join(self.labels).decode("latin-1").lower()

    def question(self) -> list[DNSQuestion]:
        """The question section to repeat."""
        return [DNSQuestion(DNSLabel(self.labels), self.qtype, self.qclass)]


def decode(query: bytes) -> Request:
    """Read a request with opcode QUERY; InvalidInput says what is wrong with it."""
    header = read_header(query)
    questions, *records = struct.unpack_from("!HHHH", query, 4)
    if questions != 1:
        raise InvalidInput(f"{questions} questions")
    if sum(records) > MAX_RECORDS:
        raise InvalidInput(f"{sum(records)} records")
    labels, offset = _question_name(query)
    if offset + 4 > len(query):
        raise InvalidInput("cut off in the question")
    qtype, qclass = struct.unpack_from("!HH", query, offset)
    end = offset = offset + 4
    options: list[tuple[int, int]] = []
    for number in range(sum(records)):
        root = query[offset : offset + 1] == b"\0"
        offset = skip_name(query, offset)
        if offset + 10 > len(query):
            raise InvalidInput("cut off in a record")
        rtype, rclass, ttl, length = struct.unpack_from("!HHIH", query, offset)
        offset += 10 + length
        if offset > len(query):
            raise InvalidInput("cut off in a record's data")
        if rtype == Qtype.OPT:
            if not root or number < sum(records) - records[2]:
                raise InvalidInput("an OPT record where none may be")
            options.append((rclass, ttl))
    if len(options) > 1:
        raise InvalidInput("two OPT records")
    payload, flags = options[0] if options else (None, 0)
    return Request(
        header.id,
        header.bitmap,
        labels,
        qtype,
        qclass,
        end,
        payload,
        version=flags >> 16 & 0xFF,
        dnssec_ok=bool(flags & 0x8000),
    )


def read_header(query: bytes) -> DNSHeader:
    """A request's header; InvalidInput if it is cut off or a reply's."""
    if len(query) < 12:
        raise InvalidInput(f"a DNS packet of {len(query)} bytes")
    ident, flags = struct.unpack_from("!HH", query)
    if flags & 0x8000:
        raise InvalidInput("a DNS reply where a request belongs")
    return DNSHeader(id=ident, bitmap=flags)


def _question_name(query: bytes) -> tuple[tuple[bytes, ...], int]:
    """Labels of the name at offset 12, and the offset behind it."""
    labels: list[bytes] = []
    offset = 12
    while offset < len(query):
        length = query[offset]
        offset += 1
        if length == 0:
            return tuple(labels), offset
        if length > 63:
            raise InvalidInput(f"a label of type {length >> 6} in the question")
        labels.append(bytes(query[offset : offset + length]))
        offset += length
        if offset - 12 > 254:
            raise InvalidInput("a name longer than 255 bytes")
    raise InvalidInput("cut off in the name")


def skip_name(query: bytes, offset: int) -> int:
    """The offset behind a name that nobody needs; a pointer ends it."""
    while offset < len(query):
        length = query[offset]
        if length == 0:
            return offset + 1
        if length >= 0xC0:
            return offset + 2
        if length > 63:
            raise InvalidInput(f"a label of type {length >> 6}")
        offset += 1 + length
    raise InvalidInput("cut off in a record's name")


def reply_header(header: DNSHeader, rcode: Rcode) -> DNSHeader:
    """The header of a reply to `header`: id, opcode, RD and CD repeated, RA set."""
    reply = DNSHeader(id=header.id, bitmap=0, qr=1, opcode=header.opcode, rd=header.rd, ra=1, cd=header.cd)
    reply.rcode = rcode & 0xF
    return reply


def is_reply(asked: Forward, reply: bytes, ident: int) -> bool:
    """Whether `reply` answers what was forwarded with id `ident`: same id, same question (RFC 5452 9.1).

    A reply with an error may leave the question out, as ours do.
    """
    if len(reply) < 12:
        return False
    got, flags, questions = struct.unpack_from("!HHH", reply)
    if got != ident or not flags & 0x8000 or flags & 0x7800:
        return False
    if questions == 0:
        return bool(flags & 0xF)
    end = asked.question_end
    same_name = bool(reply[12 : end - 4].lower() == asked.query[12 : end - 4].lower())
    return questions == 1 and same_name and reply[end - 4 : end] == asked.query[end - 4 : end]


def reply_rcode(reply: bytes) -> int:
    """The code in a reply's header (without EDNS0's upper bits)."""
    return reply[3] & 0xF


def is_truncated(reply: bytes) -> bool:
    """Whether TC is set."""
    return bool(reply[2] & 2)


def fitted(asked: Forward, reply: bytes) -> bytes:
    """`reply` with the requester's id; longer than the requester takes: cut to the question, TC set."""
    if len(reply) <= asked.limit:
        return asked.query[:2] + reply[2:]
    flags = bytes((reply[2] | 2, reply[3]))
    return asked.query[:2] + flags + b"\0\1" + bytes(6) + asked.query[12 : asked.question_end]
