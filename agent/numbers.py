"""The kernel's numbers for what apps have in common: one for each value while an app has it.  Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from appswitch.errors import Conflict, Exhausted

LAST: Final = 0xFFFF

Value = TypeVar("Value", bound=Hashable)


class Numbers(Generic[Value]):
    """Values and their numbers, `first` to LAST.  A value keeps its number as long as a member has it."""

    def __init__(self, what: str, first: int = 0) -> None:
        """`what` the values are, in errors."""
        self._what, self._first = what, first
        self._values: list[Value | None] = [None] * first
        self._members: list[int] = [0] * first
        """How many members each number has."""
        self._numbers: dict[Value, int] = {}
        self._free: set[int] = set()
        """Numbers below the last one that nobody has."""

    @property
    def values(self) -> tuple[Value | None, ...]:
        """By number; None: no member has it."""
        return tuple(self._values)

    def number(self, value: Value) -> int | None:
        """The value's; None: no member has it."""
        return self._numbers.get(value)

    def check(self, value: Value, wanted: int | None = None) -> int:
        """The number that a member with this value gets, `wanted` if there is one; nothing is changed.

        Raises Conflict (the value has another number, or the number another value) or Exhausted.
        """
        known = self._numbers.get(value)
        if known is not None:
            number = known
        elif wanted is not None:
            number = wanted
        else:
            number = min(self._free, default=len(self._values))
        if not self._first <= number <= LAST:
            raise Exhausted(
                f"apps of more than {LAST + 1 - self._first} {self._what} are more than the kernel's tables "
                "can tell apart; end some"
            )
        taken = known is None and number < len(self._values) and self._values[number] is not None
        if taken or wanted not in (None, number):
            raise Conflict(f"number {wanted} of {self._what} is another one's")
        return number

    def join(self, value: Value, wanted: int | None = None) -> None:
        """One more member.  Raises as `check`, with nothing changed."""
        number = self._numbers[value] = self.check(value, wanted)
        missing = number + 1 - len(self._values)
        self._free.update(range(len(self._values), number))
        self._free.discard(number)
        self._values += [None] * missing
        self._members += [0] * missing
        self._values[number] = value
        self._members[number] += 1

    def leave(self, value: Value) -> None:
        """One member less."""
        number = self._numbers[value]
        self._members[number] -= 1
        if self._members[number]:
            return
        del self._numbers[value]
        self._values[number] = None
        self._free.add(number)
        while len(self._values) > self._first and self._values[-1] is None:
            self._values.pop()
            self._members.pop()
            self._free.discard(len(self._values))
