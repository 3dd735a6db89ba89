"""Calls that are received and not yet answered, in memory that outlives the holder.

The kernel forgets a notification once it is received: a holder that dies then leaves the caller waiting
for ever.  So the kernel writes each one straight into a slot of a memfd of which the daemon keeps a copy,
and a successor reads the id there and answers it.  One slot per thread of the loop.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appswitch.errors import InvalidInput
from appswitch.interceptor import seccomp

SLOTS: Final = 64
"""The first holds the header."""
SLOT_SIZE: Final = 2048
"""fcntl.ioctl copies buffers of up to 1,024 bytes; a larger one the kernel writes in place."""
_HEADER: Final = struct.Struct("=8sII")
_MAGIC: Final = b"axflight"
_VERSION: Final = 1
_APP: Final = struct.Struct("=I")
_APP_AT: Final = seccomp.NOTIF.size
_GIVEN_AT: Final = _APP_AT + _APP.size
_USED: Final = _GIVEN_AT + _APP.size
_ZEROS: Final = bytes(_USED)


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call that a dead holder had received."""

    app: int
    slot: memoryview
    """The notification, as the kernel wrote it."""
    given: int
    """Number of the descriptor that the caller was given already, -1 for none: only the answer is missing."""


class Flight:
    """The memfd and its mapping."""

    def __init__(self, fd: int) -> None:
        """Owns `fd` on success.  Raises InvalidInput: not one of ours."""
        try:
            if os.fstat(fd).st_size != SLOTS * SLOT_SIZE:
                raise InvalidInput("the descriptor is not an in-flight memfd: wrong size")
            self._map = mmap.mmap(fd, SLOTS * SLOT_SIZE)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"the descriptor is not an in-flight memfd: {error}") from error
        magic, version, slots = _HEADER.unpack_from(self._map)
        if (magic, version, slots) != (_MAGIC, _VERSION, SLOTS):
            self._map.close()
            raise InvalidInput(f"the descriptor is not an in-flight memfd of version {_VERSION}")
        self.fd = fd

    @classmethod
    def create(cls) -> Flight:
        """A new one, all slots free."""
        fd = os.memfd_create("ax-flight", os.MFD_CLOEXEC)
        os.ftruncate(fd, SLOTS * SLOT_SIZE)
        os.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, SLOTS), 0)
        return cls(fd)

    def slot(self, index: int) -> memoryview:
        """Slot 1..SLOTS-1, for RECV.  Release it before close()."""
        return memoryview(self._map)[index * SLOT_SIZE : (index + 1) * SLOT_SIZE]

    def lost(self) -> Iterator[LostCall]:
        """The calls that nobody has answered."""
        for index in range(1, SLOTS):
            with self.slot(index) as slot:
                if any(slot[:8]):
                    yield LostCall(_APP.unpack_from(slot, _APP_AT)[0], slot, _given(slot))

    def close(self) -> None:
        """Unmaps it and closes the descriptor."""
        self._map.close()
        os.close(self.fd)


def clear(slot: memoryview, app: int) -> None:
    """Before RECV, which insists on zeros: nothing is in flight; the next call is this app's."""
    slot[:_USED] = _ZEROS
    _APP.pack_into(slot, _APP_AT, app)


def note_given(slot: memoryview, descriptor: int) -> None:
    """The caller has the descriptor: a successor shall not give it a second one."""
    _APP.pack_into(slot, _GIVEN_AT, descriptor + 1)


def _given(slot: memoryview) -> int:
    return int(_APP.unpack_from(slot, _GIVEN_AT)[0]) - 1
