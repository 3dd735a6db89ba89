"""Tests of state machines as a dialogue: feed an event, expect commands, see a diff where they differ.

    with Playbook(machine.handle) as play:
        play.feed(Connected()).expect(Send(CDS, first=True), Publish)

A class stands for any instance of it.  Commands that nobody expected fail the test, at the latest when
the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import ndiff
from types import TracebackType
from typing import Any


class Playbook:
    """One dialogue with one machine."""

    def __init__(self, handle: Callable[[Any], Sequence[Any]]) -> None:
        """`handle(event)` returns the machine's commands."""
        self._handle = handle
        self._left: list[Any] = []
        self._event: Any = None

    def feed(self, event: Any) -> Playbook:
        """Tell the machine something.  What the last event caused must have been expected."""
        self.done()
        self._event = event
        self._left = list(self._handle(event))
        return self

    def expect(self, *commands: Any) -> Playbook:
        """The commands that the event caused, all of them, in order."""
        got, self._left = self._left, []
        if len(got) != len(commands) or not all(map(_same, commands, got)):
            lines = "\n".join(ndiff([_show(item) for item in commands], [_show(item) for item in got]))
            raise AssertionError(f"after {_show(self._event)} (-: expected, +: got)\n{lines}")
        return self

    def done(self) -> None:
        """Nothing is left that nobody expected."""
        if self._left:
            self.expect()

    def __enter__(self) -> Playbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.done()


def _same(expected: Any, got: Any) -> bool:
    return isinstance(got, expected) if isinstance(expected, type) else bool(expected == got)


def _show(item: Any) -> str:
    text = f"any {item.__name__}" if isinstance(item, type) else repr(item)
    return text if len(text) <= 300 else f"{text[:300]}…"
