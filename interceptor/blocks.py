"""Places in an array map: a buddy allocator over entries 0..capacity.  Pure.

Blocks are powers of two, aligned to their size, so that what is given back grows together again.
"""

from __future__ import annotations

from appswitch.errors import Exhausted


class Blocks:
    """Which entries of one map are in use.  Entry 0 is never given out: it means none."""

    def __init__(self, name: str, capacity: int) -> None:
        if capacity & (capacity - 1):
            raise ValueError(f"capacity of {name} is no power of two: {capacity}")
        self.name = name
        self.capacity = capacity
        self.used = 0
        self._free: list[set[int]] = [set() for _ in range(capacity.bit_length())]
        self._free[-1].add(0)
        self.claim(0, 1)

    def take(self, count: int = 1) -> int:
        """First entry of `count` free ones; raises Exhausted if there is no such block."""
        order = (count - 1).bit_length()
        for larger in range(order, len(self._free)):
            if self._free[larger]:
                first = self._free[larger].pop()
                self._split(first, larger, first, order)
                return first
        raise Exhausted(
            f"the kernel's table {self.name!r} is full: {self.used} of {self.capacity} entries are in use and"
            f" {count} more are needed; delete vservices or end apps"
        )

    def give(self, first: int, count: int = 1) -> None:
        """Undo `take(count)`, which returned `first`."""
        order = (count - 1).bit_length()
        self.used -= 1 << order
        while order < len(self._free) - 1 and (buddy := first ^ 1 << order) in self._free[order]:
            self._free[order].discard(buddy)
            first, order = first & buddy, order + 1
        self._free[order].add(first)

    def claim(self, first: int, count: int = 1) -> bool:
        """Take exactly this block, as found in the kernel; False if it is not free or not a block."""
        order = (count - 1).bit_length() if count > 0 else 0
        if first % (1 << order) or not 0 <= first < self.capacity:
            return False
        for larger in range(order, len(self._free)):
            start = first >> larger << larger
            if start in self._free[larger]:
                self._free[larger].discard(start)
                self._split(start, larger, first, order)
                return True
        return False

    def _split(self, start: int, larger: int, first: int, order: int) -> None:
        """Halve the block at `start` until `first` stands alone; the other halves are free."""
        while larger > order:
            larger -= 1
            half = 1 << larger
            if first & half:
                self._free[larger].add(start)
                start += half
            else:
                self._free[larger].add(start + half)
        self.used += 1 << order
