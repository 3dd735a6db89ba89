"""What a client is told of its server: placeholders of its command, variables of its environment.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """What a client has to know."""

    case: str
    mode: str
    """sotw or delta."""
    port: int
    directory: Path
    """Its own, empty; removed afterwards."""

    def values(self) -> dict[str, str]:
        """By placeholder: `{address}`; as a variable of the environment `AX_CONFORMANCE_ADDRESS`."""
        return {
            "address": f"127.0.0.1:{self.port}",
            "host": "127.0.0.1",
            "port": str(self.port),
            "node": "sidecar~10.9.9.9~client-1.default~default.svc.cluster.local",
            "mode": self.mode,
            "case": self.case,
            "directory": str(self.directory),
        }

    def fill(self, command: Sequence[str]) -> list[str]:
        """A command line with the placeholders replaced; other braces stay."""
        filled = list(command)
        for name, value in self.values().items():
            filled = [part.replace(f"{{{name}}}", value) for part in filled]
        return filled

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """With the same values."""
        return {**base, **{f"AX_CONFORMANCE_{name.upper()}": value for name, value in self.values().items()}}
