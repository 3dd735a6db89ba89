"""The parts of linux/seccomp.h that the holder speaks: request numbers, layouts, and their sizes.

The kernel answers SECCOMP_GET_NOTIF_SIZES with what it would write; `check_sizes` compares.  Sources:
seccomp_unotify(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

from appswitch.errors import Unsupported

NOTIF: Final = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid (a thread's), flags; seccomp_data: nr, arch, instruction pointer, args"""
NOTIF_CALL: Final = struct.Struct("=QIIiIQQQQ")
"""The same up to the third argument: all that socket(2) has."""
RESPONSE: Final = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, val, error (negative errno), flags"""
ADDFD: Final = struct.Struct("=QIIII")
"""struct seccomp_notif_addfd: id, flags, source fd, new fd (with SETFD), new fd's flags (O_CLOEXEC or 0)"""

assert (NOTIF.size, RESPONSE.size, ADDFD.size) == (80, 24, 24)

ADDFD_FLAG_SEND: Final = 2
"""Install the descriptor and let the call return its number, in one step (5.14)."""
FD_SYNC_WAKE_UP: Final = 1
"""Caller and supervisor take turns on one CPU (6.6)."""


def _request(direction: int, number: int, size: int) -> int:
    """_IOC of asm-generic/ioctl.h with seccomp's type '!'; direction 1 is write, 2 read, 3 both."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


NOTIF_RECV: Final = _request(3, 0, NOTIF.size)
NOTIF_SEND: Final = _request(3, 1, RESPONSE.size)
NOTIF_ID_VALID: Final = _request(1, 2, 8)
NOTIF_ADDFD: Final = _request(1, 3, ADDFD.size)
NOTIF_SET_FLAGS: Final = _request(1, 4, 8)

_SYS_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
SYS_SOCKET: Final = {"x86_64": 41, "aarch64": 198}.get(platform.machine(), -1)
"""Number of socket(2) on this machine."""
_GET_NOTIF_SIZES: Final = 3


def check_sizes() -> None:
    """Raises Unsupported: the machine is unknown, or the kernel would write other sizes than ours."""
    number = _SYS_SECCOMP.get(platform.machine())
    if number is None:
        raise Unsupported(f"sockets cannot be injected on {platform.machine()}: x86_64 and aarch64 only")
    sizes = (ctypes.c_uint16 * 3)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), _GET_NOTIF_SIZES, 0, sizes) != 0:
        raise Unsupported(f"seccomp notifications: {os.strerror(ctypes.get_errno())} (needs Linux 5.14)")
    ours = (NOTIF.size, RESPONSE.size, 64)  # the third: struct seccomp_data
    if tuple(sizes) != ours:
        raise Unsupported(f"this kernel's seccomp notifications have sizes {tuple(sizes)}, expected {ours}")


_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def receive(descriptor: int, address: int) -> None:
    """NOTIF_RECV into the (zeroed) memory at `address`.  Raises OSError.

    Not fcntl.ioctl: for a buffer that it does not copy it keeps the interpreter's lock, and where RECV
    waits, all threads would.
    """
    if _ioctl(descriptor, NOTIF_RECV, address) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
