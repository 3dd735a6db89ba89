"""Finds what a message asks for beside the fields that are honoured or mean nothing to a connection."""

from __future__ import annotations

from typing import Any

from appswitch.xds.resources import Unsupported


class Leftover:
    """Collects the unsupported fields of one resource."""

    def __init__(self, resource: str) -> None:
        """`resource` is the name under which they are reported."""
        self._resource = resource
        self._found: dict[Unsupported, None] = {}

    def add(self, field: str, instead: str = "", within: str = "") -> None:
        """Report one field; `within` names a part of the resource."""
        resource = f"{self._resource}/{within}" if within else self._resource
        self._found[Unsupported(field, resource, instead)] = None

    def fields(self, prefix: str, message: Any, known: frozenset[str], within: str = "") -> None:
        """Report every field that is set in `message` and not in `known`."""
        for descriptor, _ in message.ListFields():
            if descriptor.name not in known:
                self.add(f"{prefix}.{descriptor.name}", within=within)

    def done(self) -> tuple[Unsupported, ...]:
        """All of them, each once, in the order found."""
        return tuple(self._found)
