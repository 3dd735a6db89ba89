"""One input out of some seeds.  All chance comes from the given generator, so that a seed repeats a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import msgspec

Mutator: TypeAlias = Callable[[Random, Sequence[bytes]], bytes]

_BYTES = (0, 1, 0x0A, 0x20, 0x22, 0x2C, 0x3D, 0x5C, 0x7F, 0x80, 0xBF, 0xC0, 0xED, 0xF8, 0xFE, 0xFF)
_LONG = "a" * 300
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**30, -(2**63) - 1),
    *(
        0.0,
        -0.5,
        1e308,
        "",
        " ",
        "\x00",
        "\n",
        "\ud800",
        "\U0010ffff",
        "é",
        "a" * 64,
        _LONG,
        "1.1.1.1",
        "::1",
    ),
    *(
        "0.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "1.1.1.1:80",
        "1.1.1.1:",
        "80:80",
        "80:1.1.1.1:80",
        "٣",
        "+1",
    ),
    *(
        "a=b",
        "a=b,a=c",
        "=",
        ",",
        "a.b",
        ".",
        "-a",
        "*",
        "TCP",
        "RoundRobin",
        "true",
        "01.1.1.1",
        "0",
        "99999",
    ),
    *([], {}, [[]], [None], {"": None}, ["a"] * 20, [[[[[[[[]]]]]]]]),
)


def bytewise(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One to four changes of bytes, or noise alone."""
    if random.random() < 0.02:
        return random.randbytes(random.randrange(80))
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at % len(data)] = random.choice(_BYTES)
            case 2:
                del data[at : at + random.choice((1, 2, 4, 16))]
            case 3:
                data[at:at] = bytes((random.choice(_BYTES),)) * random.choice((1, 1, 2, 60))
            case 4:
                data[at:at] = data[at : at + random.randrange(1, 40)]
            case 5:
                other = random.choice(seeds)
                data[at:] = other[random.randrange(len(other) + 1) :]
            case 6:
                width = random.choice((1, 2, 4, 8))
                number = random.choice((0, 1, len(data), 2 ** (8 * width) - 1, random.getrandbits(8 * width)))
                data[at : at + width] = (number % 2 ** (8 * width)).to_bytes(
                    width, random.choice(("big", "little"))
                )
    return bytes(data)


def _tree(random: Random, value: Any) -> Any:
    """A copy with one place changed."""
    kids = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    if not kids or random.random() < 0.15:
        return (
            _text(random, value)
            if isinstance(value, str) and random.random() < 0.6
            else random.choice(_VALUES)
        )
    key, kid = random.choice(kids)
    copy = value.copy()
    match random.randrange(8):
        case 0:
            del copy[key]
        case 1:
            copy[key] = random.choice(kids)[1]
        case 2 if isinstance(copy, dict):
            copy[random.choice(("", "version", "x", _LONG, str(key) + " "))] = random.choice(_VALUES)
        case 2:
            copy.insert(key, random.choice(_VALUES))
        case _:
            copy[key] = _tree(random, kid)
    return copy


def _text(random: Random, text: str) -> str:
    """A text with a change somewhere."""
    at = random.randrange(len(text) + 1)
    put = random.choice((",", "=", ":", ".", "-", "\x00", "\n", "/", "é", "%", "0", "a", "", _LONG, text))
    return text[:at] + put + text[at + random.randrange(3) :]


def _mixed(change: Callable[[Random, bytes], bytes]) -> Mutator:
    """Changes within the format, and sometimes bytewise ones on top or alone."""

    def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
        chance = random.random()
        if chance < 0.25:
            return bytewise(random, seeds)
        data = change(random, random.choice(seeds))
        return bytewise(random, (data,)) if chance < 0.35 else data

    return mutate


def _json(random: Random, data: bytes) -> bytes:
    value = _tree(random, msgspec.json.decode(data))
    if random.random() < 0.2:
        value = _tree(random, value)
    return json.dumps(value).encode()  # lone surrogates as escapes: the decoder has to see them


def _msgpack(random: Random, data: bytes) -> bytes:
    value = _tree(random, msgspec.msgpack.decode(data, strict=False))
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):  # msgpack has no such number, or text
        return bytewise(random, (data,))


def _fields(data: bytes) -> list[tuple[int, bytes | None, bytes]]:
    """(tag, the content where it has a length, all of it) of each field; ValueError: no message."""
    found, at = [], 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        inside = None
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, at = _varint(data, at)
                inside, at = data[at : at + length], at + length
            case _:
                raise ValueError("no wire type of proto3")
        if at > len(data) or not tag >> 3:
            raise ValueError("cut off")
        found.append((tag, inside, data[start:at]))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("no varint")


def _number(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*data, value))


def _protobuf(random: Random, data: bytes) -> bytes:
    """A change deep inside, with all lengths around it right."""
    try:
        fields = _fields(data)
    except ValueError:
        fields = []
    if not fields or random.random() < 0.1:
        return bytewise(random, (data,)) if data else random.randbytes(3)
    at = random.randrange(len(fields))
    tag, inside, whole = fields[at]
    match random.randrange(8):
        case 0:
            new = b""
        case 1:
            new = whole * random.choice((2, 3))
        case 2:
            new = random.choice(fields)[2]
        case 3:
            new = _number(tag & 7 | random.randrange(1, 20) << 3) + whole[len(_number(tag)) :]
        case _ if inside is not None:
            changed = _protobuf(random, inside)
            new = _number(tag) + _number(len(changed)) + changed
        case _:
            new = _number(tag) + _number(
                random.choice((0, 1, 2**31, 2**32 - 1, 2**63, random.getrandbits(64)))
            )
    return b"".join((*(field[2] for field in fields[:at]), new, *(field[2] for field in fields[at + 1 :])))


as_json = _mixed(_json)
as_msgpack = _mixed(_msgpack)
as_protobuf = _mixed(_protobuf)
