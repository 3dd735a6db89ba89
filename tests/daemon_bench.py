"""A whole daemon over a `FakeMachine`, for tests: started, asked, and stopped within one `asyncio.run`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fakes import FakeLog, FakeMachine

from appswitch.agent.daemon import Daemon
from appswitch.agent.settings_load import load

LAUNCHER = """
import json, os, socket, sys
launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
launcher.connect(sys.argv[1])
launcher.send(sys.argv[2].encode())
answer = launcher.recv(4096)
if json.loads(sys.argv[2]).get("new_netns", True) and answer.startswith(b"ok"):
    if sys.argv[3] == "dies":
        os._exit(9)
    socket.send_fds(launcher, [b"filter"], [0])
    assert launcher.recv(4096) == b"go\\n"
launcher.close()
print(json.dumps(answer.decode()), flush=True)
sys.stdin.read()
"""
"""What `ax run` does, and then lives until its standard input closes."""


class Launched:
    """A process that went through a launch."""

    def __init__(self, run_dir: Path, how: str, hello: dict[str, Any]) -> None:
        text = json.dumps({"version": 1, "command": ["prog"]} | hello)
        command = [sys.executable, "-c", LAUNCHER, str(run_dir / "daemon.sock"), text, how]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def answer(self) -> str:
        """The daemon's, or "" if the process died before it could tell."""
        assert self.popen.stdout is not None
        line = await asyncio.to_thread(self.popen.stdout.readline)
        return str(json.loads(line)) if line else ""

    def end(self) -> None:
        """The program ends."""
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self.popen.stdin.close()
        self.popen.wait(10)
        self.popen.stdout.close()


class Bench:
    """A run directory and a machine, on which daemons come and go."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.machine = FakeMachine(folder / "machine")
        self.log = FakeLog()
        self.programs: list[Launched] = []

    @asynccontextmanager
    async def daemon(self, *words: str, killed: bool = False) -> AsyncIterator[Daemon]:
        """A daemon that runs; `killed`: its end is not its own, nothing is put in order."""
        argv = [
            "--run-dir",
            str(self.run_dir),
            "--rest-port",
            "0",
            "--node-name",
            "n",
            "--ports",
            "20000-20010",
        ]
        self.log = FakeLog()
        async with AsyncExitStack() as parts:
            daemon = Daemon(load([*argv, *words], {}), self.log, self.machine.ground())
            await daemon.start(parts)
            yield daemon
            if killed:
                self.kept = self._snapshot()
        if killed:
            self._restore(self.kept)

    def launch(self, how: str = "lives", **hello: Any) -> Launched:
        """`ax run` of a program."""
        program = Launched(self.run_dir, how, hello)
        self.programs.append(program)
        return program

    async def until(self, condition: Callable[[], Any], what: str, within: float = 10.0) -> None:
        """Wait, with a deadline."""
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110  the condition is of the daemon's inside
                await asyncio.sleep(0.005)
        assert condition(), what

    async def get(self, path: str) -> Any:
        """GET /v1/PATH."""
        reader, writer = await asyncio.open_unix_connection(str(self.run_dir / "api.sock"))
        writer.write(f"GET /v1/{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return json.loads(body)

    def _snapshot(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.run_dir.iterdir() if path.is_file()}

    def _restore(self, files: dict[Path, bytes]) -> None:
        for path, data in files.items():
            path.write_bytes(data)

    def close(self) -> None:
        """End the programs."""
        for program in self.programs:
            program.end()
        self.machine.kernel.dispose()


def run(bench: Bench, work: Callable[[], Awaitable[None]]) -> None:
    """`asyncio.run`, and nothing left open."""
    before = len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        await work()

    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * len(bench.programs)
