"""The decoder of requests: good values, bad values, and anything at all."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.rest_state import (
    EXPOSED,
    MYVSVC,
)

from appswitch.agent import requests
from appswitch.errors import InvalidInput
from appswitch.model import Backend, LbPolicy, PortMap


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "-x"}, "name '-x'"),
        ({"name": "a b"}, "name 'a b'"),
        ({"name": ""}, "name"),
        ({"ip": "1.1.1"}, "ip '1.1.1'"),
        ({"ip": "::1"}, "ip '::1'"),
        ({"ip": "127.0.0.1"}, "loopback"),
        ({"ip": "224.0.0.1"}, "multicast"),
        ({"ip": ""}, "ip ''"),
        ({"backends": []}, "backends"),
        ({"backends": ["host"]}, "backend 'host'"),
        ({"backends": ["10.0.2.15:0"]}, "backend port: '0'"),
        ({"backends": ["10.0.2.15:"]}, "backend port: ''"),
        ({"backends": ["10.0.2.15", "10.0.2.15"]}, "twice"),
        ({"backends": ["10.0.0.1"] * 1025}, "backends"),
        ({"expose": []}, "ports: a vservice needs at least one"),
        ({"expose": [{"port": 0, "host_port": 1}]}, "expose"),
        ({"expose": [{"port": 8000, "host_port": 1}, {"port": 8000, "host_port": 2}]}, "8000 is named twice"),
        ({"ports": [{"port": 80, "target": 8000}]}, "two spellings"),
        ({"lbtype": "random"}, "lbtype 'random' is not one of Random, RoundRobin"),
        ({"source_ip": "x"}, "source-ip 'x'"),
        ({"external": True}, "later release"),
        ({"external": "yes"}, "external"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match="(?s).*" + reason.replace("[", "\\[")):
        requests.decode_vservice(msgspec.json.encode(EXPOSED | change))


def test_a_whole_request() -> None:
    body = {
        "name": "Web.Prod",
        "ip": "1.1.1.1",
        "backends": ["10.0.2.15", "10.0.2.16:9000"],
        "ports": [{"port": 80, "target": 8000}, {"port": 443, "target": 8443}],
        "lbtype": "RoundRobin",
        "source_ip": "10.0.2.15",
    }
    made = requests.decode_vservice(msgspec.json.encode(body))
    assert made.name == "web.prod"
    assert made.ports == (PortMap(80, 8000), PortMap(443, 8443))
    assert made.ports_text == "[{80 8000} {443 8443}]"
    assert made.backends == (Backend(IPv4Address("10.0.2.15")), Backend(IPv4Address("10.0.2.16"), 9000))
    assert (made.policy, made.source_ip, made.origin) == (
        LbPolicy.ROUND_ROBIN,
        IPv4Address("10.0.2.15"),
        "user",
    )


def test_without_address_the_registry_makes_one() -> None:
    body = {name: value for name, value in EXPOSED.items() if name != "ip"}
    assert requests.decode_vservice(msgspec.json.encode(body)).addresses == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_invalid_input(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        requests.decode_vservice(body)


@given(
    st.dictionaries(st.sampled_from([*MYVSVC, "ports", "expose", "lbtype", "source_ip", "x"]), json_values)
)
def test_any_json_raises_only_invalid_input(change: dict[str, Any]) -> None:
    try:
        requests.decode_vservice(msgspec.json.encode(EXPOSED | change))
    except InvalidInput as error:
        assert str(error)


@given(
    st.text(max_size=30),
    st.lists(st.text(max_size=20), max_size=3),
    st.text(max_size=10),
    st.lists(st.tuples(st.integers(), st.integers()), max_size=3),
)
def test_any_values_raise_only_invalid_input(
    ip: str, backends: list[str], name: str, ports: list[Any]
) -> None:
    pairs = [requests.NewPort(*pair) for pair in ports]
    try:
        requests.vservice(requests.NewVService(name=name, ip=ip, backends=backends, ports=pairs))
    except InvalidInput as error:
        assert str(error)


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_pair_is_two_ports_or_invalid(left: str, right: str) -> None:
    try:
        pair = requests.parse_pair(f"{left}:{right}", "--ports", "A:B")
    except InvalidInput:
        return
    assert all(1 <= port <= 65535 for port in pair)
