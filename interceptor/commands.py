"""What `tables.py` tells the kernel driver to write, and what it reads back.  Pure.

Commands are applied in order; within the order everything is made before it is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap


@dataclass(frozen=True, slots=True)
class WriteBackends:
    """Packed `struct backend`s, from entry `first` on."""

    first: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteGroup:
    """One packed `struct group`."""

    index: int
    data: bytes
    inherit: int = 0
    """Group whose round-robin counter (`next`) goes on in this one; 0: none."""


@dataclass(frozen=True, slots=True)
class WriteVerdicts:
    """Words of 8 bytes, from entry `first` on.  Programs may be reading them: store each as one."""

    first: int
    data: bytes


@dataclass(frozen=True, slots=True)
class InsertKey:
    """Add a packed `struct key` that is not there."""

    key: bytes
    index: int


@dataclass(frozen=True, slots=True)
class SetService:
    """Store one service word, at once: this publishes the service (0: it is absent)."""

    index: int
    word: int


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Remove a key whose service has been absent for a second."""

    key: bytes


Command = WriteBackends | WriteGroup | WriteVerdicts | InsertKey | SetService | DeleteKey


@dataclass(frozen=True, slots=True)
class Dump:
    """The tables as the kernel has them: the arrays whole (or up to the last used entry), the keys all."""

    keys: Mapping[bytes, int]
    services: bytes | memoryview | mmap
    verdicts: bytes | memoryview | mmap
    groups: bytes | memoryview | mmap
    backends: bytes | memoryview | mmap
