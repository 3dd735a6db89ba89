"""The client that is judged, and the probe: processes, new for each script, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from appswitch.errors import Unavailable
from appswitch.xds.conformance.place import Place
from appswitch.xds.conformance.script import Fault

PROBE_DEADLINE = 10.0
"""Seconds for one answer of the probe."""
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
TAIL = 300
"""Characters of the client's last words."""


class Subject(Protocol):
    """A client under judgement."""

    async def start(self, place: Place) -> None:
        """Let it connect.  Raises Unavailable if it cannot be started."""

    async def stop(self) -> None:
        """End it, and everything that it started."""

    def ended(self) -> str:
        """How it ended by itself; empty: it runs."""

    def output(self) -> str:
        """What it has printed."""

    @property
    def can_probe(self) -> bool:
        """Whether it can be asked what it has applied."""

    async def probe(self, target: str) -> frozenset[str]:
        """The endpoints that it has for VIP:port.  Raises Fault."""


class Command:
    """A client that is a command."""

    def __init__(self, client: Sequence[str], probe: Sequence[str] = ()) -> None:
        self._client, self._probe = client, probe
        self._place: Place | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, place: Place) -> None:
        """In a process group and session of its own."""
        self._place = place
        command = place.fill(self._client)
        with self._log(place).open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=place.environment(os.environ),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"--client {command[0]}: {error.strerror}") from error

    @staticmethod
    def _log(place: Place) -> Path:
        return place.directory / "client.log"

    async def stop(self) -> None:
        """SIGTERM to the group, then SIGKILL to what is left of it."""
        if (process := self._process) is None:
            return
        self._process = None
        _signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            pass
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()

    def ended(self) -> str:
        """With its last words."""
        if self._process is None or (code := self._process.returncode) is None:
            return ""
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        words = self.output().strip()
        return f"the client ended ({how}): {words[-TAIL:] or 'without a word'}"

    def output(self) -> str:
        """Standard output and standard error."""
        if self._place is None:
            return ""
        try:
            return self._log(self._place).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def can_probe(self) -> bool:
        """Whether there is a probe command."""
        return bool(self._probe)

    async def probe(self, target: str) -> frozenset[str]:
        """Run it with VIP:port as its last argument; one endpoint a line."""
        assert self._place is not None
        command = [*self._place.fill(self._probe), target]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._place.environment(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"--probe {command[0]}: {error.strerror}") from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), PROBE_DEADLINE)
        except TimeoutError:
            raise Fault(f"the probe did not answer within {PROBE_DEADLINE:g} s") from None
        finally:
            if process.returncode is None:
                _signal_group(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            words = err.decode(errors="replace").strip()[-TAIL:]
            raise Fault(f"the probe ended with exit code {process.returncode}: {words}")
        return frozenset(out.decode(errors="replace").split())


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
