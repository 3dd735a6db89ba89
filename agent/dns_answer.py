"""What the built-in DNS server says to one packet: an answer, or that somebody else must be asked.  Pure.

`dns_message.py` reads the request, `dns_names.py` knows the names, dnslib packs the answer.

Sources: RFC 1035 (opcodes, classes), 2308 (negative answers), 3596 (AAAA), 6761 (localhost), 6895 (codes),
8020 (what lies below an NXDOMAIN), 8482 (ANY).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from dnslib import EDNS0, PTR, RR, SOA, A, DNSHeader, DNSLabel, DNSRecord

from appswitch.agent.dns_message import (
    MAX_TCP,
    MAX_UDP,
    MIN_UDP,
    Forward,
    Qtype,
    Rcode,
    Request,
    decode,
    read_header,
    reply_header,
)
from appswitch.agent.dns_names import NameTable
from appswitch.errors import InvalidInput

TTL = 5
"""Seconds an answer may be kept: apps come and go, and asking again costs a fraction of a millisecond."""
NEGATIVE_TTL = 1
"""Seconds that "there is none" may be kept: a name may be taken by the next `ax run`."""
_LOCALHOST = (IPv4Address("127.0.0.1"),)
_IN, _ANY_CLASS = 1, 255
_REVERSE = ".in-addr.arpa"


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to send."""

    message: bytes
    rcode: Rcode
    fault: str = ""
    """Why the request was malformed, for the log; empty for a good one."""


def answer(query: bytes, names: NameTable, domain: str, *, tcp: bool = False) -> Answered | Forward:
    """The reply to one packet, or who is to be asked.

    `domain` is `--dns-domain` in normal form.  InvalidInput: nothing may be sent back (no whole header,
    or itself a reply: answering replies is how two servers keep each other busy for ever).
    """
    header = read_header(query)
    if header.opcode != 0:
        return Answered(_bare_reply(header, Rcode.NOTIMP), Rcode.NOTIMP)
    try:
        request = decode(query)
    except InvalidInput as fault:
        return Answered(_bare_reply(header, Rcode.FORMERR), Rcode.FORMERR, str(fault))
    limit = MAX_TCP if tcp else min(max(request.payload or 0, MIN_UDP), MAX_UDP)
    if request.version > 0:
        return _reply(request, Rcode.BADVERS, limit)
    if request.qtype == Qtype.OPT:
        return Answered(_bare_reply(header, Rcode.FORMERR), Rcode.FORMERR, "a question for OPT")
    if request.qclass not in (_IN, _ANY_CLASS) or request.qtype in (Qtype.AXFR, Qtype.IXFR):
        return _reply(request, Rcode.REFUSED, limit)
    name = request.name
    if name.endswith(_REVERSE) and (address := reverse_address(name)) is not None:
        known = names.names_of(address) or (("localhost",) if address.is_loopback else ())
        if known:
            return _pointers(request, known, domain, limit)
        if address in names.virtual:
            return _reply(request, Rcode.NXDOMAIN, limit)
    elif (found := _addresses(name, names, domain)) is not None:
        return _records(request, found, domain, limit)
    elif name == domain or name.endswith("." + domain):
        return _missing(request, name, names, domain, limit)
    elif name and "." not in name:
        # Never forwarded: a mistyped name of the mesh gets its answer at once and is no secret of others.
        return _reply(request, Rcode.NXDOMAIN, limit)
    if not request.recursion:
        return _reply(request, Rcode.REFUSED, limit)
    return Forward(query, name, request.end, limit)


def reverse_address(name: str) -> IPv4Address | None:
    """The address that `4.3.2.1.in-addr.arpa` asks for; None for any other name."""
    try:
        return IPv4Address(".".join(reversed(name.removesuffix(_REVERSE).split("."))))
    except ValueError:
        return None


def servfail(asked: Forward) -> bytes:
    """The reply when no server could be asked."""
    header = reply_header(read_header(asked.query), Rcode.SERVFAIL)
    return bytes(DNSRecord(header, decode(asked.query).question()).pack())


def _addresses(name: str, names: NameTable, domain: str) -> tuple[IPv4Address, ...] | None:
    found = names.addresses(name)
    if found is None and name.endswith("." + domain):
        found = names.addresses(name[: -len(domain) - 1])
    if found is None and (name == "localhost" or name.endswith(".localhost")):
        found = _LOCALHOST
    return found


def _records(request: Request, found: tuple[IPv4Address, ...], domain: str, limit: int) -> Answered:
    if request.qtype not in (Qtype.A, Qtype.ANY):
        zone = _label(domain) if request.name.endswith("." + domain) else DNSLabel(request.labels)
        return _reply(request, Rcode.NOERROR, limit, authority=_soa(zone, domain))
    owner = DNSLabel(request.labels)
    return _reply(
        request, Rcode.NOERROR, limit, [RR(owner, Qtype.A, ttl=TTL, rdata=A(str(ip))) for ip in found]
    )


def _pointers(request: Request, known: tuple[str, ...], domain: str, limit: int) -> Answered:
    if request.qtype not in (Qtype.PTR, Qtype.ANY):
        return _reply(request, Rcode.NOERROR, limit, authority=_soa(DNSLabel(request.labels), domain))
    owner = DNSLabel(request.labels)
    full = [name if "." in name or name == "localhost" else f"{name}.{domain}" for name in known]
    return _reply(
        request, Rcode.NOERROR, limit, [RR(owner, Qtype.PTR, ttl=TTL, rdata=PTR(_label(n))) for n in full]
    )


def _missing(request: Request, name: str, names: NameTable, domain: str, limit: int) -> Answered:
    """A name under our domain that has no addresses: the domain, a part of a longer name, or nothing."""
    soa = _soa(_label(domain), domain)
    if name == domain:
        if request.qtype in (Qtype.SOA, Qtype.ANY):
            return _reply(request, Rcode.NOERROR, limit, [soa])
        return _reply(request, Rcode.NOERROR, limit, authority=soa)
    exists = names.is_above(name[: -len(domain) - 1]) or names.is_above(name)
    return _reply(request, Rcode.NOERROR if exists else Rcode.NXDOMAIN, limit, authority=soa)


def _reply(
    request: Request, rcode: Rcode, limit: int, answers: list[RR] | None = None, authority: RR | None = None
) -> Answered:
    """Pack a reply with as many answers as fit; TC says that there are more (RFC 2181 9)."""
    header = reply_header(DNSHeader(id=request.id, bitmap=request.flags), rcode)
    header.aa = rcode in (Rcode.NOERROR, Rcode.NXDOMAIN)
    record = DNSRecord(header, request.question(), answers, auth=[authority] if authority else None)
    if request.payload is not None:
        flags = "do" if request.dnssec_ok else ""
        record.add_ar(EDNS0(ext_rcode=rcode >> 4, flags=flags, udp_len=MAX_UDP))
    return Answered(_packed(record, limit), rcode)


def _packed(record: DNSRecord, limit: int) -> bytes:
    message = bytes(record.pack())
    if len(message) <= limit:
        return message
    record.header.tc = 1
    if not record.rr:
        record.auth = []  # a SOA beside the longest possible name
    answers = record.rr
    fit, over = 0, len(answers)
    while over - fit > 1:
        record.rr = answers[: (fit + over) // 2]
        if len(record.pack()) <= limit:
            fit = len(record.rr)
        else:
            over = len(record.rr)
    record.rr = answers[:fit]
    return bytes(record.pack())


def _bare_reply(header: DNSHeader, rcode: Rcode) -> bytes:
    """A reply to what could not be read: the header alone."""
    return bytes(DNSRecord(reply_header(header, rcode)).pack())


def _soa(zone: DNSLabel, domain: str) -> RR:
    times = (1, 60, 60, 3600, NEGATIVE_TTL)
    data = SOA(_label("dns." + domain), _label("hostmaster." + domain), times)
    return RR(zone, Qtype.SOA, ttl=NEGATIVE_TTL, rdata=data)


def _label(name: str) -> DNSLabel:
    # As bytes: given text, dnslib would read backslashes and IDNA into it.
    return DNSLabel(tuple(name.encode().split(b".")))
