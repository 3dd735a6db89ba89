"""Messages between daemon and holder: whatever comes, the answer is a message or InvalidInput."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.errors import AppSwitchError, InvalidInput, Unavailable
from appswitch.interceptor import inject_wire as wire
from appswitch.interceptor.inject_flight import Flight

IDS = st.integers(1, 0xFFFF_FFFF)
RECORDS = st.builds(
    wire.AppRecord, id=IDS, class_index=st.integers(0, 0xFFFF_FFFF), ip=st.ip_addresses(v=4).map(str)
)
REQUESTS = st.one_of(
    st.builds(lambda record: wire.Request(1, add=record), RECORDS),
    st.builds(
        lambda inside, record, path: wire.Request(1, nest=wire.Nest(inside, record, path)),
        IDS,
        RECORDS,
        st.text(),
    ),
    st.builds(lambda app: wire.Request(1, remove=wire.Remove(app)), IDS),
    st.builds(lambda after: wire.Request(1, list=wire.List(after)), IDS),
    st.just(wire.Request(1, adopt=wire.Adopt())),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["version", "add", "nest", "app", "id", "ip", "class"]), inner)
    ),
    max_leaves=8,
)
PARTS = st.dictionaries(
    st.sampled_from(["version", "add", "nest", "remove", "list", "adopt", "apps", "error"]), JSON
)


@given(REQUESTS)
def test_requests_come_back(request: wire.Request) -> None:
    assert wire.decode_request(wire.encode(request)) == request


@given(st.lists(RECORDS, max_size=5), st.booleans())
def test_replies_come_back(apps: list[wire.AppRecord], more: bool) -> None:
    reply = wire.Reply(pid=7, apps=tuple(apps), more=more)
    assert wire.decode_reply(wire.encode(reply)) == reply


@settings(max_examples=100)
@given(st.binary() | PARTS.map(lambda parts: json.dumps(parts).encode()))
def test_nonsense_is_invalid_input(data: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply):
        try:
            decode(data)
        except InvalidInput:
            pass


def test_deep_nesting() -> None:
    with pytest.raises(InvalidInput):
        wire.decode_request(b'{"version":1,"add":' * 20_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"version":1}',
        b'{"list":{}}',
        b'{"version":1,"list":{},"adopt":{}}',
        b'{"version":1,"add":{"id":0,"class":0,"ip":"1.1.1.1"}}',
        b'{"version":1,"add":{"id":4294967296,"class":0,"ip":"1.1.1.1"}}',
        b'{"version":1,"add":{"id":1,"class":-1,"ip":"1.1.1.1"}}',
        b'{"version":1,"add":{"id":1,"class":0,"ip":"1.1.1.256"}}',
        b'{"version":1,"remove":{}}',
    ],
)
def test_what_a_request_must_hold(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        wire.decode_request(data)


def test_the_contract() -> None:
    """The spelling that daemons of other versions rely on."""
    request = wire.Request(1, add=wire.AppRecord(5, 2, "1.1.1.1"))
    assert json.loads(wire.encode(request)) == {"version": 1, "add": {"id": 5, "class": 2, "ip": "1.1.1.1"}}
    assert request.add is not None and request.add.address == IPv4Address("1.1.1.1")


def test_errors_are_typed() -> None:
    for code, kind in wire.ERRORS.items():
        error: AppSwitchError = wire.error_of(wire.Failure(code, "why"))
        assert type(error) is kind and "why" in str(error)
    assert type(wire.error_of(wire.Failure("of-a-later-version", "why"))) is Unavailable


@given(st.binary(max_size=64))
def test_a_foreign_memfd_is_refused(data: bytes) -> None:
    fd = os.memfd_create("foreign")
    try:
        os.write(fd, data)
        with pytest.raises(InvalidInput):
            Flight(fd)
        os.ftruncate(fd, 64 * 2048)
        with pytest.raises(InvalidInput):
            Flight(fd)
    finally:
        os.close(fd)
