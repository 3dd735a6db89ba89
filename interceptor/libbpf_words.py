"""What libbpf prints while it loads an object, so that an error can say what was refused, and why."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WARN: Final = 0
_ROOM: Final = 1 << 24
"""Bytes of one text: the verifier's whole log may be in it (libbpf asks for 16 MiB at most)."""
# The va_list is handed on as a pointer: that is what it is in the calling conventions of x86-64 and aarch64.
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_STATISTICS: Final = ("processed ", "verification ", "stack depth ")
_LOG = re.compile(r"prog '(\w+)': -- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --", re.DOTALL)


@contextmanager
def heard(library: ctypes.CDLL) -> Iterator[list[str]]:
    """The warnings that come meanwhile."""
    words: list[str] = []
    vsnprintf = ctypes.CDLL(None).vsnprintf

    def hear(level: int, form: int, arguments: int) -> int:
        if level == _WARN:
            room = ctypes.create_string_buffer(_ROOM)
            vsnprintf(room, ctypes.c_size_t(_ROOM), ctypes.c_void_p(form), ctypes.c_void_p(arguments))
            words.append(room.value.decode(errors="replace"))
        return 0

    callback = _PRINT(hear)
    library.libbpf_set_print(ctypes.cast(callback, ctypes.c_void_p))
    try:
        yield words
    finally:
        library.libbpf_set_print(None)


def reason(words: list[str]) -> str:
    """`PROGRAM: the verifier's last word`, or else the first warning; empty where there is none."""
    if log := _LOG.search("".join(words)):
        lines = [line for line in log[2].splitlines() if line and not line.startswith(_STATISTICS)]
        return f"{log[1]}: {lines[-1] if lines else 'no word of the verifier'}"
    return words[0].strip().removeprefix("libbpf: ") if words else ""
