"""What the kernel itself says of our programs and maps: runs, time, memory, fill.

The kernel counts runs and their time only while somebody asks for it (`BPF_ENABLE_STATS`, or the sysctl
`kernel.bpf_stats_enabled`): it then reads the clock twice a run of *every* BPF program of the machine.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appswitch.interceptor import libbpf

_ID: Final = 4
_RUNS: Final = 192
"""Offset in struct bpf_prog_info of run_time_ns, run_cnt (linux/bpf.h, kernel 5.1)."""
_ITERABLE: Final = {1, 9}
"""BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH: only of these are entries counted."""


@dataclass(frozen=True, slots=True)
class ProgramStatistics:
    """One loaded program."""

    name: str
    id: int
    attached: int
    """How many control groups it hangs on."""
    runs: int
    """While somebody asked for statistics."""
    nanoseconds: int
    memory: int
    """Bytes locked, as /proc/PID/fdinfo says."""


@dataclass(frozen=True, slots=True)
class MapStatistics:
    """One map."""

    name: str
    id: int
    entries: int | None
    """None: of an array, a queue, a ring or a storage they cannot be counted."""
    capacity: int
    """Entries; of the ring: bytes."""
    memory: int


class Statistics:
    """Of one object's programs (name to descriptor) and maps.  System calls alone: for a thread."""

    def __init__(
        self, programs: Mapping[str, int], kinds: Mapping[str, int], maps: Mapping[str, libbpf.Map]
    ) -> None:
        """`kinds`: each program's attach type."""
        self._programs = programs
        self._kinds = kinds
        self._maps = maps
        self.cgroups: set[Path] = set()
        """Where programs were attached; those that are gone since drop out when they are asked for."""

    def programs(self) -> list[ProgramStatistics]:
        """Every program.  Raises OSError."""
        attached = self._attached()
        found = []
        for name, descriptor in self._programs.items():
            info = libbpf.info(descriptor)
            [number] = struct.unpack_from("=I", info, _ID)
            nanoseconds, runs = struct.unpack_from("=QQ", info, _RUNS)
            memory = _memory(descriptor)
            found.append(ProgramStatistics(name, number, attached[number], runs, nanoseconds, memory))
        return found

    def maps(self) -> list[MapStatistics]:
        """Every map; entries are counted one by one, some 1 µs each.  Raises OSError."""
        found = []
        for name, each in self._maps.items():
            kind, number, _, _, capacity = struct.unpack_from("=IIIII", libbpf.info(each.fd))
            entries = len(list(each.keys())) if kind in _ITERABLE else None
            found.append(MapStatistics(name, number, entries, capacity, _memory(each.fd)))
        return found

    @staticmethod
    def enable() -> int:
        """Runs are counted until the descriptor that this returns is closed.  Raises OSError."""
        return libbpf.enable_stats()

    def _attached(self) -> Counter[int]:
        numbers: Counter[int] = Counter()
        for cgroup in tuple(self.cgroups):
            try:
                descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                self.cgroups.discard(cgroup)
                continue
            try:
                for kind in set(self._kinds.values()):
                    numbers.update(libbpf.attached_numbers(descriptor, kind))
            finally:
                os.close(descriptor)
        return numbers


def _memory(descriptor: int) -> int:
    found = re.search(
        r"^memlock:\s+(\d+)$", Path(f"/proc/self/fdinfo/{descriptor}").read_text(), re.MULTILINE
    )
    return int(found[1]) if found else 0
