"""Where REST listens, and what stops it from doing so."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest
from unit.agent.rest_state import (
    MemoryState,
    Talk,
    manual_servers,
    serve,
)

from appswitch.agent.rest import Rest
from appswitch.errors import Conflict, Unsupported


def test_the_socket_file(tmp_path: Path) -> None:
    """It replaces a stale one, only its group may use it, and it goes at the end."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def dialogue() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await Talk(tmp_path)("GET", "/v1/apps"))[0] == 200

    serve(MemoryState(manual_servers()), tmp_path, 0, dialogue)
    assert not path.exists()


def test_what_cannot_be_listened_on(tmp_path: Path) -> None:
    (tmp_path / "api.sock").write_text("not a socket")

    async def start(run_dir: Path, port: int) -> None:
        await Rest(MemoryState(manual_servers()), "0", run_dir / "api.sock", port, lambda *_: None).start()

    with pytest.raises(Conflict, match="cannot listen"):
        asyncio.run(start(tmp_path, 0))
    assert (tmp_path / "api.sock").read_text() == "not a socket"
    with pytest.raises(Unsupported, match="cannot listen"):
        asyncio.run(start(tmp_path / "missing", 0))
    with socket.socket() as taken, pytest.raises(Conflict, match="choose another with --rest-port"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "run").mkdir()
        asyncio.run(start(tmp_path / "run", taken.getsockname()[1]))
    assert list((tmp_path / "run").iterdir()) == []
