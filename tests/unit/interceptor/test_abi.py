"""Each struct shared with C: same size, same offset of every field, by the object's own BTF."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from typing import Any

import pytest

from appswitch.interceptor import abi
from appswitch.interceptor.programs import OBJECT

Btf = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def btf() -> Btf:
    dump = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(OBJECT)], check=True, capture_output=True, timeout=30
    )
    return {kind["id"]: kind for kind in json.loads(dump.stdout)["types"]}


def flat(btf: Btf, type_id: int, base: int = 0) -> list[tuple[int, int]]:
    """(offset, size) of every scalar in a type, arrays of bytes as one."""
    kind = btf[type_id]
    match kind["kind"]:
        case "STRUCT":
            return [
                place
                for member in kind["members"]
                for place in flat(btf, member["type_id"], base + member["bits_offset"] // 8)
            ]
        case "TYPEDEF":
            return flat(btf, kind["type_id"], base)
        case "ARRAY":
            [(_, size)] = flat(btf, kind["type_id"])
            return [(base, size * kind["nr_elems"])]
    return [(base, kind["size"])]


def unpacked(layout: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of every field of a `struct` format."""
    places, offset = [], 0
    for token in re.findall(r"\d*[a-zA-Z]", layout.format):
        size = struct.calcsize("=" + token)
        places.append((offset, size))
        offset += size
    return places


@pytest.mark.parametrize("name", sorted(abi.LAYOUTS))
def test_layout(btf: Btf, name: str) -> None:
    [kind] = [kind for kind in btf.values() if kind["kind"] == "STRUCT" and kind["name"] == name]
    assert kind["size"] == abi.LAYOUTS[name].size
    assert flat(btf, kind["id"]) == unpacked(abi.LAYOUTS[name])


@pytest.mark.parametrize(("name", "entries"), [
    ("keys", abi.KEYS), ("services", abi.SERVICES), ("verdicts", abi.VERDICTS),
    ("groups", abi.GROUPS), ("backends", abi.BACKENDS),
])  # fmt: skip
def test_capacity(btf: Btf, name: str, entries: int) -> None:
    """A map definition holds its number of entries as the length of an array type."""
    [variable] = [kind for kind in btf.values() if kind["kind"] == "VAR" and kind["name"] == name]
    members = {member["name"]: member["type_id"] for member in btf[variable["type_id"]]["members"]}
    assert btf[btf[members["max_entries"]]["type_id"]]["nr_elems"] == entries


def test_a_fresh_socket_has_an_owner_and_nothing_else() -> None:
    value = abi.sock_value(7, 3, bytes([1, 1, 1, 1]), abi.APP_EMPTY)
    assert value == abi.APP.pack(7, 3, bytes([1, 1, 1, 1]), abi.APP_EMPTY) + bytes(80)
