"""Clocks jump: whatever waits, rests or expires goes by the monotonic one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WALL = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\.(now|utcnow|today)\(|CLOCK_REALTIME")
ALLOWED = {"interceptor/inject.py": 1, "xds/client.py": 1}
"""Time stamps of log lines (structlog makes the daemon's); and whether a refused token has expired (RFC 7519
has wall time), which goes into a message alone."""


def test_nothing_goes_by_the_wall_clock() -> None:
    found = {}
    for folder in ("agent", "interceptor", "xds", "gateways"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".py", ".c", ".h") or "_built" in path.parts:
                continue
            if number := len(WALL.findall(path.read_text())):
                found[str(path.relative_to(ROOT))] = number
    assert found == ALLOWED
