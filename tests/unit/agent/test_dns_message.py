"""DNS packets: requests read, replies checked."""

from __future__ import annotations

from dnslib import EDNS0, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.agent import dns_message
from appswitch.agent.dns_answer import answer
from appswitch.agent.dns_message import Forward
from appswitch.agent.dns_names import NameTable

LABEL = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@settings(max_examples=100)
@given(NAME, st.integers(1, 65535), st.sampled_from([1, 255]), st.integers(0, 65535), st.booleans())
def test_decode_reads_what_dnslib_encodes(
    name: str, qtype: int, qclass: int, payload: int, edns: bool
) -> None:
    query = DNSRecord.question(name)
    query.q.qtype, query.q.qclass = qtype, qclass
    if edns:
        query.add_ar(EDNS0(udp_len=payload, flags="do"))
    got = dns_message.decode(query.pack())
    assert (got.id, got.recursion, got.name) == (query.header.id, True, name.lower())
    assert (got.qtype, got.qclass) == (qtype, qclass)
    assert (got.payload, got.dnssec_ok) == ((payload, True) if edns else (None, False))


def reply_to(asked: Forward, ident: int) -> DNSRecord:
    reply = DNSRecord.parse(asked.query).reply()
    reply.header.id = ident
    return reply


def test_only_replies_to_what_was_asked_are_taken() -> None:
    asked = answer(DNSRecord.question("Example.com").pack(), NameTable(), "appswitch.local")
    assert isinstance(asked, Forward)
    good = reply_to(asked, 7)
    assert dns_message.is_reply(asked, good.pack(), 7)
    assert not dns_message.is_reply(asked, good.pack(), 8), "another id"
    assert not dns_message.is_reply(asked, good.pack()[:11], 7), "cut off"
    good.header.qr = 0
    assert not dns_message.is_reply(asked, good.pack(), 7), "a request"
    other = DNSRecord.question("example.org").reply()
    other.header.id = 7
    assert not dns_message.is_reply(asked, other.pack(), 7), "another name"
    assert dns_message.is_reply(asked, b"\0\7\x80\5" + bytes(8), 7), "REFUSED without a question"
    assert not dns_message.is_reply(asked, b"\0\7\x80\0" + bytes(8), 7), "success without a question"


def test_a_reply_too_long_for_the_requester_is_cut() -> None:
    asked = answer(DNSRecord.question("example.com").pack(), NameTable(), "appswitch.local")
    assert isinstance(asked, Forward)
    reply = reply_to(asked, 7).pack() + bytes(600)
    short = DNSRecord.parse(dns_message.fitted(asked, reply))
    assert short.header.tc == 1 and short.q.qname == "example.com" and short.header.id != 7
    assert dns_message.fitted(asked, reply[:100])[2:] == reply[2:100]
