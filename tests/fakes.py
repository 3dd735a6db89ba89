"""Stand-ins for what the daemon stands on, so that its tests need neither root nor BPF."""

from __future__ import annotations

from typing import Any

from appswitch.agent.logs import Event, Log


class FakeLog(Log):
    """Keeps what was logged: (event, fields)."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, **fields: Any) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        """The events' names in order."""
        return [event.label for event, _ in self.events]
