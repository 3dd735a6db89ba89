"""From host names to questions, and from replies to addresses."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from dnslib import AAAA, CNAME, QTYPE, RR, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent.dns_addresses import Found, candidates, decode_reply, local, parse_hosts, question
from appswitch.agent.dns_message import is_reply
from appswitch.agent.resolv_conf import ResolvConf
from appswitch.errors import InvalidInput

ASKED = question("www.example.com")
ADDRESS = IPv4Address("192.0.2.1")


def reply(*records: RR, rcode: int = 0) -> bytes:
    made: DNSRecord = DNSRecord.parse(ASKED.query).reply()
    made.header.rcode = rcode
    for record in records:
        made.add_answer(record)
    return bytes(made.pack())


def a_record(address: str, ttl: int, name: str = "www.example.com") -> RR:
    return RR(name, QTYPE.A, ttl=ttl, rdata=A(address))


def test_a_question_is_read_by_dnslib_and_answered() -> None:
    record = DNSRecord.parse(ASKED.query)
    assert (str(record.q.qname), record.q.qtype, record.header.rd) == ("www.example.com.", QTYPE.A, 1)
    assert is_reply(ASKED, reply(), 0)


def test_addresses_behind_an_alias_live_as_long_as_the_shortest_of_all_records() -> None:
    alias = RR("www.example.com", QTYPE.CNAME, ttl=30, rdata=CNAME("x.example.net"))
    six = RR("x.example.net", QTYPE.AAAA, ttl=60, rdata=AAAA("2001:db8::1"))
    found = decode_reply(
        ASKED, reply(alias, a_record("192.0.2.1", 60, "x.example.net"), six, a_record("192.0.2.2", 90))
    )
    assert found == Found(True, (ADDRESS, IPv4Address("192.0.2.2")), 30.0)


def test_a_time_to_live_with_its_sign_set_is_none() -> None:
    assert decode_reply(ASKED, reply(a_record("192.0.2.1", 1 << 31))).ttl == 0.0


def test_no_such_name_and_no_such_address_are_two_things() -> None:
    assert decode_reply(ASKED, reply(rcode=3)) == Found(False)
    assert decode_reply(ASKED, reply()) == Found(True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "FORMERR"),
        (reply(rcode=2), "SERVFAIL"),
        (reply(rcode=11), "code 11"),
        (reply(a_record("192.0.2.1", 60))[:-1], "cut off"),
        (reply(a_record("192.0.2.1", 60))[:-8], "cut off"),
        (reply()[:6] + b"\xff\xff" + reply()[8:], "65535 answers"),
        (reply()[:4] + b"\0\0\0\1" + reply()[8:], "0 questions"),
    ],
)
def test_replies_that_say_nothing(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_reply(ASKED, data)


@given(tail=st.binary(max_size=80), count=st.integers(0, 5))
def test_any_bytes_raise_only_our_error(tail: bytes, count: int) -> None:
    head = reply()
    try:
        decode_reply(ASKED, head[:6] + count.to_bytes(2, "big") + head[8 : ASKED.question_end] + tail)
    except InvalidInput:
        pass


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, "ä.test", ".".join(["abcdefg"] * 40)])
def test_what_is_no_host_name(name: str) -> None:
    with pytest.raises(InvalidInput, match="no host name"):
        question(name)


def test_the_search_list_is_gone_along_as_the_c_library_does() -> None:
    conf = ResolvConf(search=("ns.svc.cluster.local", "corp."), options=("ndots:2",))
    assert candidates("db", conf) == ("db.ns.svc.cluster.local", "db.corp", "db")
    assert candidates("a.b.test", conf) == ("a.b.test", "a.b.test.ns.svc.cluster.local", "a.b.test.corp")
    assert candidates("db.", conf) == ("db",)
    assert candidates("a.test", ResolvConf(options=("ndots:x",))) == ("a.test",)


def test_hosts_file() -> None:
    hosts = parse_hosts(
        "127.0.0.1 localhost\n::1 ip6\n192.0.2.1\tWeb.test web # x\n\nrubbish y\n192.0.2.2 web"
    )
    assert hosts["web.test"] == (ADDRESS,)
    assert local("web", hosts) == (ADDRESS, IPv4Address("192.0.2.2"))
    assert local("y", hosts) == local("ip6", hosts) == ()
    assert local("x.localhost", {}) == (IPv4Address("127.0.0.1"),)


@given(text=st.text(max_size=200), options=st.lists(st.text(max_size=8).map("ndots:".__add__), max_size=2))
def test_any_hosts_file_and_any_options_will_do(text: str, options: list[str]) -> None:
    for name in parse_hosts(text):
        assert local(name, parse_hosts(text))
    found = candidates("web.test", ResolvConf(search=(text,), options=tuple(options)))
    assert "web.test" in found and len(found) <= 2
