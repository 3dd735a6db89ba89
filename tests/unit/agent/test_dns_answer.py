"""The built-in DNS server's answers, packet in, packet out."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.agent.dns_answer import Answered, answer, servfail
from appswitch.agent.dns_message import Forward, Rcode
from appswitch.agent.dns_names import NameTable
from appswitch.errors import InvalidInput
from appswitch.model import App, Class, PortMap, Snapshot, VService

DOMAIN = "appswitch.local"


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


def app(number: int, name: str, address: str) -> App:
    return App(number, f"uid-{number}", Class(), ip(address), name)


def vservice(name: str, *addresses: str, origin: str = "user") -> VService:
    return VService(name, tuple(map(ip, addresses)), (PortMap(80, 80),), (), origin=origin)


SNAPSHOT = Snapshot(
    node="host0",
    node_ip=ip("10.0.2.15"),
    apps=(
        app(1, "web", "241.1.2.3"),
        app(2, "Pair", "2.2.2.2"),
        app(3, "pair", "1.1.1.1"),
        app(4, "", "9.9.9.9"),
        app(5, "both", "5.5.5.5"),
    ),
    vservices=(
        vservice("myvsvc", "3.3.3.3", "3.3.3.1"),
        vservice("both", "6.6.6.6"),
        vservice("no host name!", "7.7.7.7"),
        vservice("reviews.default.svc.cluster.local:9080", "10.96.0.9", origin="istio"),
    ),
    names=(
        ("reviews.default.svc.cluster.local", (ip("10.96.0.9"),)),
        ("reviews", (ip("10.96.0.9"),)),
        ("*.wild.example", (ip("10.96.0.7"),)),
        ("exact.wild.example", (ip("10.96.0.8"),)),
        ("web", (ip("10.96.0.1"),)),
    ),
)
NAMES = NameTable.build(SNAPSHOT)


def ask(
    name: str, qtype: str = "A", qclass: str = "IN", payload: int = 0, names: NameTable = NAMES, **kw: bool
):
    """The decoded answer; AssertionError if it was forwarded."""
    query = DNSRecord.question(name, qtype, qclass)
    if payload:
        query.add_ar(EDNS0(udp_len=payload, flags="do"))
    got = answer(query.pack(), names, DOMAIN, **kw)
    assert isinstance(got, Answered), got
    reply = DNSRecord.parse(got.message)
    assert reply.header.id == query.header.id and reply.header.qr == 1 and not got.fault
    return reply


def addresses(reply: DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in reply.rr]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", ["241.1.2.3"]),
        ("web.", ["241.1.2.3"]),
        ("WeB.AppSwitch.Local", ["241.1.2.3"]),
        ("pair", ["1.1.1.1", "2.2.2.2"]),
        ("myvsvc", ["3.3.3.3", "3.3.3.1"]),
        ("both", ["6.6.6.6"]),
        ("reviews.default.svc.cluster.local", ["10.96.0.9"]),
        ("reviews.default.svc.cluster.local.appswitch.local", ["10.96.0.9"]),
        ("a.b.wild.example", ["10.96.0.7"]),
        ("exact.wild.example", ["10.96.0.8"]),
        ("localhost", ["127.0.0.1"]),
        ("any.localhost", ["127.0.0.1"]),
    ],
)
def test_a(name: str, expected: list[str]) -> None:
    reply = ask(name)
    assert (addresses(reply), RCODE[reply.header.rcode], reply.header.aa) == (expected, "NOERROR", 1)
    assert str(reply.q.qname) == name.rstrip(".") + ".", "the question is repeated as it was asked"
    assert all(rr.ttl <= 5 for rr in reply.rr)


@pytest.mark.parametrize("qtype", ["AAAA", "MX", "TXT", "SRV", "HTTPS", "NS"])
@pytest.mark.parametrize("name", ["web", "web.appswitch.local", "reviews.default.svc.cluster.local"])
def test_other_types_of_a_known_name_are_empty_and_no_nxdomain(name: str, qtype: str) -> None:
    reply = ask(name, qtype)
    assert (RCODE[reply.header.rcode], reply.rr) == ("NOERROR", [])
    (soa,) = reply.auth
    assert QTYPE[soa.rtype] == "SOA" and str(reply.q.qname).endswith(str(soa.rname))


@pytest.mark.parametrize("name", ["nobody", "nobody.appswitch.local", "x.web.appswitch.local"])
@pytest.mark.parametrize("qtype", ["A", "AAAA"])
def test_unknown_names_that_are_ours(name: str, qtype: str) -> None:
    assert RCODE[ask(name, qtype).header.rcode] == "NXDOMAIN"


def test_names_above_known_names_exist() -> None:
    assert RCODE[ask("cluster.local.appswitch.local").header.rcode] == "NOERROR"
    assert RCODE[ask(DOMAIN).header.rcode] == "NOERROR"
    assert QTYPE[ask(DOMAIN, "SOA").rr[0].rtype] == "SOA"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("241.1.2.3", ["web.appswitch.local."]),
        ("10.96.0.9", ["reviews.default.svc.cluster.local."]),
        ("1.1.1.1", ["pair.appswitch.local."]),
        ("127.0.0.1", ["localhost."]),
    ],
)
def test_ptr(address: str, expected: list[str]) -> None:
    assert addresses(ask(ip(address).reverse_pointer, "PTR")) == expected
    assert ask(ip(address).reverse_pointer, "TXT").rr == []


def test_ptr_of_a_free_virtual_address_is_not_forwarded() -> None:
    assert RCODE[ask(ip("241.9.9.9").reverse_pointer, "PTR").header.rcode] == "NXDOMAIN"


@pytest.mark.parametrize(
    "name",
    ["example.com", "8.8.8.8.in-addr.arpa", "x.in-addr.arpa", "1.0.ip6.arpa", "appswitch.local.com", "."],
)
def test_foreign_names_are_forwarded(name: str) -> None:
    query = DNSRecord.question(name)
    got = answer(query.pack(), NAMES, DOMAIN)
    assert isinstance(got, Forward) and got.query == query.pack() and got.limit == 512
    assert RCODE[DNSRecord.parse(servfail(got)).header.rcode] == "SERVFAIL"
    query.header.rd = 0
    got = answer(query.pack(), NAMES, DOMAIN)
    assert isinstance(got, Answered) and got.rcode == Rcode.REFUSED


@pytest.mark.parametrize(("qtype", "qclass"), [("TXT", "CH"), ("AXFR", "IN"), ("IXFR", "IN"), ("A", "None")])
def test_refused(qtype: str, qclass: str) -> None:
    assert RCODE[ask("web", qtype, qclass).header.rcode] == "REFUSED"


def test_edns_is_answered_in_kind() -> None:
    assert ask("web").ar == []
    (opt,) = ask("web", payload=1232).ar
    assert opt.edns_do == 1 and opt.edns_ver == 0 and opt.edns_len >= 512
    query = DNSRecord.question("web")
    query.add_ar(EDNS0(udp_len=1232, version=1))
    got = answer(query.pack(), NAMES, DOMAIN)
    assert isinstance(got, Answered) and got.rcode == Rcode.BADVERS
    reply = DNSRecord.parse(got.message)
    assert (reply.header.rcode, reply.ar[0].edns_rcode, reply.rr) == (0, 1, [])


def test_udp_is_cut_to_the_requesters_size() -> None:
    many = tuple(IPv4Address(0xF1000000 + number) for number in range(1, 5000))
    names = NameTable.build(Snapshot("n", ip("1.1.1.1"), names=(("many.example", many),)))
    for payload, limit in ((0, 512), (100, 512), (1232, 1232), (65535, 4096)):
        query = DNSRecord.question("many.example")
        if payload:
            query.add_ar(EDNS0(udp_len=payload))
        got = answer(query.pack(), names, DOMAIN)
        assert isinstance(got, Answered)
        assert limit - 40 < len(got.message) <= limit, payload
        reply = DNSRecord.parse(got.message)
        assert reply.header.tc == 1 and [str(a) for a in many[: len(reply.rr)]] == addresses(reply)
    got = answer(DNSRecord.question("many.example").pack(), names, DOMAIN, tcp=True)
    assert isinstance(got, Answered) and 65000 < len(got.message) <= 65535


def test_the_longest_names_fit_512_bytes() -> None:
    domain = ".".join(["d" * 49] * 4)
    name = ".".join(["n" * 60] * 4)
    names = NameTable.build(Snapshot("n", ip("1.1.1.1"), names=((name, (ip("1.1.1.1"),)),)))
    got = answer(DNSRecord.question(name, "AAAA").pack(), names, domain)
    assert isinstance(got, Answered) and len(got.message) <= 512


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda q: q[:2] + b"\x10" + q[3:], Rcode.NOTIMP),
        (lambda q: q[:2] + b"\x28" + q[3:], Rcode.NOTIMP),
        (lambda q: q[:4] + b"\0\2" + q[6:], Rcode.FORMERR),
        (lambda q: q[:4] + b"\0\0" + q[6:], Rcode.FORMERR),
        (lambda q: q[:6] + b"\xff\xff" + q[8:], Rcode.FORMERR),
        (lambda q: q[:6] + b"\0\1" + q[8:], Rcode.FORMERR),
        (lambda q: q[:12] + b"\xc0\x0c" + q[-4:], Rcode.FORMERR),
        (lambda q: q[:12] + b"\x40" + q[13:], Rcode.FORMERR),
        (lambda q: q[:12] + b"\x3f" + b"x" * 63 + q[12:], Rcode.NXDOMAIN),
        (lambda q: q[:12] + (b"\x3f" + b"x" * 63) * 4 + q[12:], Rcode.FORMERR),
        (lambda q: q[:-4] + b"\0\x29\0\1", Rcode.FORMERR),
        (lambda q: q[:10] + b"\0\2" + q[12:] + (b"\0\0\x29\4\xd0" + bytes(6)) * 2, Rcode.FORMERR),
        (lambda q: q[:6] + b"\0\1" + q[8:] + b"\0\0\x29\4\xd0" + bytes(6), Rcode.FORMERR),
        (lambda q: q[:10] + b"\0\1" + q[12:] + b"\1x\0\0\x29\4\xd0" + bytes(6), Rcode.FORMERR),
    ],
)
def test_what_is_wrong_gets_its_code(change, rcode: Rcode) -> None:
    got = answer(change(DNSRecord.question("web.appswitch.local").pack()), NAMES, DOMAIN)
    assert isinstance(got, Answered) and got.rcode == rcode
    assert bool(got.fault) == (rcode == Rcode.FORMERR)
    assert DNSRecord.parse(got.message).header.rcode == rcode


def test_every_truncation_of_a_request_is_an_answer_or_the_typed_error() -> None:
    query = DNSRecord.question("web.appswitch.local")
    query.add_ar(EDNS0(udp_len=1232))
    packet = query.pack()
    for length in range(len(packet)):
        if length < 12:
            with pytest.raises(InvalidInput):
                answer(packet[:length], NAMES, DOMAIN)
        else:
            got = answer(packet[:length], NAMES, DOMAIN)
            assert isinstance(got, Answered) and got.rcode == Rcode.FORMERR and got.fault


def test_replies_are_never_answered() -> None:
    with pytest.raises(InvalidInput, match="a DNS reply"):
        answer(DNSRecord.question("web").reply().pack(), NAMES, DOMAIN)


@settings(max_examples=200)
@given(st.binary(max_size=600), st.booleans())
def test_arbitrary_bytes_raise_only_the_typed_error(packet: bytes, tcp: bool) -> None:
    for request in (packet, b"\0\1\1\0\0\1\0\0\0\0\0\1" + packet):
        try:
            got = answer(request, NAMES, DOMAIN, tcp=tcp)
        except InvalidInput:
            continue
        if isinstance(got, Answered):
            assert got.message[:2] == request[:2] and len(got.message) <= (65535 if tcp else 4096)
        else:
            assert servfail(got)[:2] == request[:2]


LABEL = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@settings(max_examples=100)
@given(NAME, st.ip_addresses(v=4))
def test_every_name_of_the_table_is_answered_both_ways(name: str, address: IPv4Address) -> None:
    names = NameTable.build(Snapshot("n", ip("1.1.1.1"), apps=(app(1, name, str(address)),)))
    assert addresses(ask(name, names=names)) == [str(address)]
    assert addresses(ask(f"{name}.{DOMAIN}", names=names)) == [str(address)]
    full = name if "." in name else f"{name}.{DOMAIN}"
    assert addresses(ask(address.reverse_pointer, "PTR", names=names)) == [full.lower() + "."]
