"""Stands in for the C launcher: `python seccomp_app.py FD COMMAND…` filters socket(), sends the notify
descriptor over the inherited Unix socket FD, waits for one byte, then becomes COMMAND.

With FD = "-" nothing is filtered (the native side of a comparison).
"""

from __future__ import annotations

import array
import ctypes
import os
import platform
import socket
import struct
import sys
from collections.abc import Sequence

_SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]
_SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5

# offsets in struct seccomp_data: nr 0, args[0] 16, args[1] 24
_LOAD, _JEQ, _AND, _RET = 0x20, 0x15, 0x54, 0x06
_PROGRAM = [
    (_LOAD, 0, 0, 0),
    (_JEQ, 0, 8, _SOCKET),
    (_LOAD, 0, 0, 16),
    (_JEQ, 1, 0, socket.AF_INET),
    (_JEQ, 0, 5, socket.AF_INET6),
    (_LOAD, 0, 0, 24),
    (_AND, 0, 0, 0xF),
    (_JEQ, 1, 0, socket.SOCK_STREAM),
    (_JEQ, 0, 1, socket.SOCK_DGRAM),
    (_RET, 0, 0, _USER_NOTIF),
    (_RET, 0, 0, _ALLOW),
]


def install(killable: bool = True) -> int:
    """Filters this thread's process from here on; returns the notify descriptor."""
    code = b"".join(struct.pack("=HBBI", *line) for line in _PROGRAM)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(_PROGRAM), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    flags = _NEW_LISTENER | (_WAIT_KILLABLE if killable else 0)
    descriptor = int(libc.syscall(ctypes.c_long(_SECCOMP), 1, ctypes.c_ulong(flags), program))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def main(arguments: Sequence[str]) -> None:
    descriptor, *command = arguments
    if descriptor != "-":
        with socket.socket(fileno=int(descriptor)) as channel:
            notify = install()
            channel.sendmsg([b"filter"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [notify]))])
            os.close(notify)
            if channel.recv(1) != b"g":
                sys.exit("no go")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
