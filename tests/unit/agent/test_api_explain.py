"""Who dials and where to, by the names that users have for them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.rest_state import (
    EXPOSED,
    app,
    labels,
    manual_node1,
    manual_servers,
)

from appswitch.agent import requests
from appswitch.agent.api_explain import find_client, find_destination
from appswitch.errors import InvalidInput, NotFound
from appswitch.model import Class


@given(st.dictionaries(st.sampled_from(["from", "labels", "destination", "x"]), st.text(max_size=40)))
def test_any_query_raises_only_typed_errors(query: dict[str, str]) -> None:
    try:
        wanted = requests.decode_explain(query)
        find_client(manual_servers(), wanted)
        find_destination(manual_servers(), wanted)
    except (InvalidInput, NotFound) as error:
        assert str(error)


def test_who_dials() -> None:
    snapshot = replace(
        manual_node1(),
        apps=(
            app(1, "1.1.1.1", labels(role="a"), name="web"),
            app(2, "1.1.1.1", labels(role="b"), name="web"),
            app(3, "2.2.2.2", name="db"),
        ),
    )

    def client(**query: Any) -> Any:
        return find_client(snapshot, requests.ExplainQuery("1.1.1.1", 80, **query))

    assert client(app="00000002") == snapshot.apps[1]
    assert client(app="DB") == snapshot.apps[2]
    assert client() == Class()
    assert client(labels="role=a") == labels(role="a")
    with pytest.raises(InvalidInput, match="00000001, 00000002"):
        client(app="web")
    with pytest.raises(NotFound, match="no app 'x'"):
        client(app="x")


def test_where_to() -> None:
    names = (("details.default.svc.cluster.local", (IPv4Address("10.96.0.7"),)),)
    vservice = requests.decode_vservice(msgspec.json.encode(EXPOSED))
    snapshot = replace(
        manual_node1(), vservices=(vservice,), names=names, apps=(app(3, "2.2.2.2", name="db"),)
    )
    for host, address in (
        ("9.9.9.9", "9.9.9.9"),
        ("myvsvc", "1.1.1.1"),
        ("DB", "2.2.2.2"),
        ("details.default.svc.cluster.local.", "10.96.0.7"),
    ):
        found = find_destination(snapshot, requests.ExplainQuery(host, 8000))
        assert (found.address, found.port) == (IPv4Address(address), 8000)
    with pytest.raises(NotFound, match="'nobody'"):
        find_destination(snapshot, requests.ExplainQuery("nobody", 80))


@pytest.mark.parametrize("destination", ["[::1]:80", "::1", "[fd00::14]"])
def test_an_ipv6_address_is_told_as_one(destination: str) -> None:
    with pytest.raises(InvalidInput, match="services have IPv4 addresses"):
        requests.decode_explain({"destination": destination})
