"""The launcher's hello: what is accepted, and that anything else is one InvalidInput."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent import hello
from appswitch.errors import InvalidInput
from appswitch.model import DEFAULT_LABELS, Expose, Labels


def message(**fields: Any) -> bytes:
    """A hello with the fields given."""
    return msgspec.json.encode({"version": 1, "command": ["true"]} | fields)


def test_a_whole_hello() -> None:
    request = hello.decode(
        message(
            ip="1.1.1.1",
            name="Web.prod",
            labels="role=test,zone=a b",
            expose=["80:5000", "81:0.0.0.0:5001"],
            user="alice",
            interface="eth0",
            namespace="default",
            service_account="sa",
            command=["nginx", "-g", "daemon off;"],
        )
    )
    assert request.ip == IPv4Address("1.1.1.1")
    assert request.name == "web.prod"
    assert request.app_class.labels == Labels(frozenset({("role", "test"), ("zone", "a b")}))
    assert request.exposes == (Expose(80, 5000), Expose(81, 5001, IPv4Address("0.0.0.0")))
    assert request.command == ("nginx", "-g", "daemon off;")


def test_what_the_launcher_found() -> None:
    request = hello.decode(
        message(
            kept=[0, 3],
            closed=[7],
            lonely=True,
            nameservers=["0.0.0.0", "127.0.0.1", "8.8.8.8", "9.9.9.9"],
            ids=[5, 6],
        )
    )
    assert (request.inherited, request.lonely, request.ids) == ("kept 0,3; closed 7", True, (5, 6))
    assert request.nameservers == (IPv4Address("127.0.0.1"), IPv4Address("8.8.8.8"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("0", 0.0), ("10s", 10.0), ("150ms", 0.2), ("1.5", 1.5), ("10m", 600.0)],
)
def test_connect_wait(text: str, seconds: float | None) -> None:
    assert hello.decode(message(connect_wait=text)).connect_wait == seconds


@pytest.mark.parametrize("text", ["s", "-1s", "1h", "11m", "1e3", "10 s", "١s", "9" * 30])
def test_no_connect_wait(text: str) -> None:
    with pytest.raises(InvalidInput, match="--connect-wait"):
        hello.decode(message(connect_wait=text))


def test_defaults() -> None:
    request = hello.decode(message())
    assert request.app_class.labels == DEFAULT_LABELS
    assert request.ip is None and request.new_netns and request.dns_override


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"ip": "1.1.1"}, "--ip '1.1.1' is no IPv4 address"),
        ({"ids": [1, 2, 3]}, "does not decode"),
        ({"ids": [0xFFFF_FFFF, 0]}, "does not decode"),
        ({"nameservers": ["::1"]}, "nameserver '::1' is no IPv4 address"),
        ({"ip": "127.0.0.1"}, "--ip 127.0.0.1: is loopback"),
        ({"ip": "169.254.1.1"}, "link-local"),
        ({"ip": "::1"}, "no IPv4 address"),
        ({"name": "a b"}, "--name 'a b' is no DNS name"),
        ({"name": "-a"}, "is no DNS name"),
        ({"name": "a" * 64}, "is no DNS name"),
        ({"labels": "role"}, "--labels 'role': 'role' is no KEY=VALUE"),
        ({"labels": "a=b=c"}, "is no KEY=VALUE"),
        ({"labels": "a=b,"}, "'' is no KEY=VALUE"),
        ({"labels": "a=b,a=c"}, "'a' has two values"),
        ({"expose": ["80"]}, "--expose '80' is neither"),
        ({"expose": ["80:99999"]}, "--expose '80:99999': '99999' is no port from 1 to 65535"),
        ({"expose": ["80:x:99"]}, "'x' is no IPv4 address"),
        ({"user": "a\nb"}, "is no user name or uid"),
        ({"interface": "a" * 16}, "is no interface name"),
        ({"interface": "lo"}, "is no interface name"),
        ({"interface": "eth0", "new_netns": False}, "needs a namespace"),
        ({"namespace": "A"}, "is no Kubernetes name"),
        ({"command": []}, "no command to run"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"version": 2}, "hello has version 2"),
        ({"version": "1"}, "hello does not decode"),
        ({"command": "true"}, "hello does not decode"),
        ({"cwd": "/" * 70_000}, "hello of more than 65536 bytes"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        hello.decode(message(**fields))
    assert error in str(raised.value)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_invalid_input(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        hello.decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**20) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from([*hello.Hello.__struct_fields__, "other"]),
        json_values | st.text(alphabet="=,:.0123456789abc-~ \n\x00é", max_size=30),
    )
)
def test_arbitrary_fields_raise_only_invalid_input(fields: dict[str, Any]) -> None:
    try:
        hello.decode(message(**fields))
    except InvalidInput:
        pass


@given(st.binary(max_size=40), st.integers(0, 200))
def test_truncated_and_damaged_hellos(damage: bytes, where: int) -> None:
    whole = message(ip="1.1.1.1", labels="a=b", name="web")
    try:
        hello.decode(whole[:where] + damage)
    except InvalidInput:
        pass


label_text = st.text(
    st.characters(exclude_characters=",=", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(st.dictionaries(label_text, label_text, min_size=1, max_size=4))
def test_labels_hold_any_characters_but_comma_and_equals(pairs: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in pairs.items())
    labels = hello.decode(message(labels=text)).app_class.labels
    assert labels.pairs == frozenset(pairs.items())
    assert hello.parse_labels(str(labels)) == labels
