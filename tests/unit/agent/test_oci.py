"""What OCI runtimes send decodes, or is invalid; annotations are the flags of `ax run`."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.agent import oci
from appswitch.errors import InvalidInput
from appswitch.model import Class, Labels

ROOT = Path(__file__).resolve().parents[3]
STATE = {
    "ociVersion": "1.0.2",
    "id": "web",
    "status": "creating",
    "pid": 4711,
    "bundle": "/b",
    "annotations": {"appswitch.io/ip": "1.1.1.1", "appswitch.io/labels": "role=a", "other": "x"},
}


def process_state(**changes: Any) -> bytes:
    return json.dumps(
        {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": 4712, "metadata": "", "state": STATE} | changes
    ).encode()


def test_a_hooks_state() -> None:
    state = oci.decode_state(json.dumps(STATE).encode())
    assert (state.id, state.pid) == ("web", 4711)
    assert oci.wishes_of(state) == {"ip": "1.1.1.1", "labels": "role=a"}
    bare = json.dumps({"id": "x", "pid": 1}).encode()
    assert oci.wishes_of(oci.decode_state(bare)) == {}


def test_a_process_with_its_descriptor() -> None:
    found = oci.decode_process_state(
        process_state(fds=["other", "seccompFd"], metadata="name=web ip=9.9.9.1")
    )
    assert (found.container, found.pid, found.descriptor) == ("web", 4712, 1)
    assert found.wishes == {"ip": "1.1.1.1", "labels": "role=a", "name": "web"}  # annotations win
    wanted = oci.request(found)
    assert (wanted.ip, wanted.name, wanted.new_netns) == (IPv4Address("1.1.1.1"), "web", True)
    assert wanted.app_class == Class(Labels(frozenset({("role", "a")})))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{}",
        b"\xff",
        process_state(fds=[]),
        process_state(fds=["seccompFd"] * 2),
        process_state(pid=0),
        process_state(pid=1 << 40),
        process_state(metadata="name"),
        process_state(metadata="size=4"),
        process_state(state=STATE | {"annotations": {"appswitch.io/size": "4"}}),
    ],
)
def test_wrong(wrong: bytes) -> None:
    with pytest.raises(InvalidInput):
        oci.decode_process_state(wrong)


def test_wishes_are_checked_as_flags_are() -> None:
    for metadata in ("ip=1.1.1", "name=a..b", "labels=a", "namespace=X"):
        state = STATE | {"annotations": {}}
        with pytest.raises(InvalidInput):
            oci.request(oci.decode_process_state(process_state(metadata=metadata, state=state)))


TEXT = st.text(max_size=20)
ANNOTATIONS = st.dictionaries(st.sampled_from([oci.PREFIX + wish for wish in oci.WISHES]) | TEXT, TEXT)
NUMBERS = st.integers(-1, 1 << 23) | st.integers()
STATES = st.fixed_dictionaries(
    {}, optional={"id": TEXT, "pid": NUMBERS, "status": TEXT, "annotations": ANNOTATIONS | st.none()}
)
PROCESSES = st.fixed_dictionaries(
    {"fds": st.lists(st.sampled_from(["seccompFd", "x"]), max_size=3), "pid": NUMBERS, "state": STATES},
    optional={"metadata": TEXT},
)


def decode_any(data: bytes) -> None:
    """Everything that outsiders' bytes go through: InvalidInput, or a request."""
    for decode in (
        lambda: oci.wishes_of(oci.decode_state(data)),
        lambda: oci.request(oci.decode_process_state(data)),
    ):
        try:
            decode()
        except InvalidInput:
            pass


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | (STATES | PROCESSES).map(lambda state: json.dumps(state).encode()))
def test_any_bytes(data: bytes) -> None:
    decode_any(data)


def test_the_profile_traps_what_the_launcher_does() -> None:
    """deploy/oci/seccomp.json against launcher/filter.c, by evaluating its rules."""
    profile = json.loads((ROOT / "deploy/oci/seccomp.json").read_text())

    def action(call: str, *args: int) -> str:
        for rule in profile["syscalls"]:
            if call in rule["names"] and all(
                args[arg["index"]] & arg["value"] == arg["valueTwo"] for arg in rule["args"]
            ):
                return str(rule["action"]) + str(rule.get("errnoRet", ""))
        return str(profile["defaultAction"])

    flags = 0o2000000 | 0o4000
    for domain in (2, 10):
        for kind, protocols in ((1, (0, 6)), (2, (0, 17))):
            for protocol in protocols:
                assert action("socket", domain, kind | flags, protocol) == "SCMP_ACT_NOTIFY"
        assert action("socket", domain, 1, 262) == "SCMP_ACT_ERRNO93"
        assert action("socket", domain, 3, 1) == "SCMP_ACT_ALLOW"
    assert action("socket", 1, 1, 0) == action("socket", 16, 2, 0) == "SCMP_ACT_ALLOW"
    source = (ROOT / "interceptor/launcher/filter.c").read_text()
    asked = set("NAME CONF FLAGS ADDR DSTADDR BRDADDR NETMASK METRIC MEM MTU ENCAP HWADDR".split())
    asked |= {"INDEX", "PFLAGS", "COUNT", "TXQLEN", "MAP"}
    assert all(f"SIOCGIF{name}" in source for name in asked)
    numbers = {0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891B, 0x891D, 0x891F, 0x8921, 0x8925, 0x8927}
    numbers |= {0x8933, 0x8935, 0x8938, 0x8942, 0x8970, 0x894B}
    for number in range(0x8800, 0x8D00):
        refused = 0x890B <= number < 0x8C00 and number not in numbers
        for high in (0, 1 << 32):
            assert action("ioctl", 3, number | high) == ("SCMP_ACT_ERRNO1" if refused else "SCMP_ACT_ALLOW")
