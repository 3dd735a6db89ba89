"""resolv.conf: the host's read, the apps' written."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.agent.resolv_conf import ResolvConf, parse_resolv_conf, resolv_conf

DNS_IP = IPv4Address("241.255.255.53")


def test_the_hosts_is_read_as_resolvers_do() -> None:
    got = parse_resolv_conf(
        "# comment\n; another\nnameserver 10.0.0.2\nnameserver fe80::1%eth0  \nnameserver nonsense\n"
        "domain first.example\nsearch a.example  b.example\noptions ndots:2 trust-ad\noptions edns0\nweird\n"
    )
    assert got == ResolvConf(
        servers=((ip_address("10.0.0.2"), 53), (ip_address("fe80::1%eth0"), 53)),
        search=("a.example", "b.example"),
        options=("ndots:2", "trust-ad", "edns0"),
    )


def test_without_a_nameserver_it_is_this_machines() -> None:
    assert parse_resolv_conf("search x\n").servers == ((ip_address("127.0.0.1"), 53),)


def test_no_more_than_three_servers() -> None:
    text = "".join(f"nameserver 10.0.0.{number}\n" for number in range(1, 6))
    assert [str(address) for address, _ in parse_resolv_conf(text).servers] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]


def test_the_apps_file() -> None:
    host = parse_resolv_conf(
        "search a.example AppSwitch.local. b.example\noptions ndots:5 trust-ad rotate use-vc\n"
    )
    lines = resolv_conf(DNS_IP, "appswitch.local", host).splitlines()
    assert lines[1:] == [
        "nameserver 241.255.255.53",
        "search appswitch.local a.example b.example",
        "options ndots:5 use-vc",
    ]
    assert resolv_conf(DNS_IP, "appswitch.local").splitlines()[1:] == [lines[1], "search appswitch.local"]


def test_a_long_search_list_is_cut_where_resolvers_would_drop_it() -> None:
    host = ResolvConf(search=tuple(f"{'x' * 60}.example{number}" for number in range(9)))
    got = parse_resolv_conf(resolv_conf(DNS_IP, "appswitch.local", host))
    assert got.search[0] == "appswitch.local" and len(" ".join(got.search)) <= 255 and len(got.search) <= 6


@settings(max_examples=100)
@given(st.text(max_size=300))
def test_any_text_is_read_and_what_we_write_is_read_back(text: str) -> None:
    host = parse_resolv_conf(text)
    assert host.servers
    got = parse_resolv_conf(resolv_conf(DNS_IP, "appswitch.local", host))
    assert got.servers == ((DNS_IP, 53),) and got.search[0] == "appswitch.local"
