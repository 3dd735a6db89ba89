"""`--cpu-profile FILE` and `--mem-profile FILE`, by pyinstrument and memray: an extra, `appswitch[profile]`.

The CPU profile is of the thread that runs the event loop, by its CPU time: waiting costs nothing.  It is
written every KEEP seconds and at the end.  memray writes its file as it goes, and follows all threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from appswitch.agent.tasks import spawn, stop
from appswitch.errors import Unsupported, UsageError

KEEP: Final = 10.0
"""Seconds that `kill -9` loses at most of a CPU profile."""
INTERVAL: Final = 0.001
"""Seconds of CPU time between two samples."""
MISSING: Final = "needs the profilers, which are not installed: pip install 'appswitch[profile]'"


class Profile(Protocol):
    """A running profiler."""

    def keep(self) -> None:
        """Write what there is; the profile goes on."""

    def close(self) -> None:
        """Write it and end."""


class NoProfile:
    """Neither flag was given."""

    def keep(self) -> None: ...

    def close(self) -> None: ...


class CpuProfile:
    """pyinstrument's samples, in the format that the file's name says."""

    def __init__(self, path: Path) -> None:
        """Begins at once, in this thread.  Raises Unsupported, OSError."""
        try:
            from pyinstrument import Profiler
            from pyinstrument.stack_sampler import get_stack_sampler
        except ImportError as error:
            raise Unsupported(f"--cpu-profile {MISSING}") from error
        path.touch()  # better an error now than none at the end
        self._path = path
        get_stack_sampler().timer_func = time.thread_time  # this thread's CPU time, not the clock's
        self._profiler = Profiler(interval=INTERVAL, async_mode="disabled")
        self._sum: Any = None
        self._profiler.start()

    def keep(self) -> None:
        """Raises OSError."""
        self._write()
        self._profiler.start()

    def close(self) -> None:
        """Raises OSError."""
        self._write()

    def _write(self) -> None:
        from pyinstrument.session import Session

        session = self._profiler.stop()
        self._sum = session if self._sum is None else Session.combine(self._sum, session)
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            scratch.write_text(self._renderer().render(self._sum), encoding="utf-8", errors="surrogateescape")
            scratch.replace(self._path)
        finally:
            scratch.unlink(missing_ok=True)

    def _renderer(self) -> Any:
        from pyinstrument import renderers

        match self._path.suffix:
            case ".html":
                return renderers.HTMLRenderer()
            case ".pstats":
                return renderers.PstatsRenderer()
            case _:
                return renderers.SpeedscopeRenderer()


class MemoryProfile:
    """memray's allocations."""

    def __init__(self, path: Path) -> None:
        """Begins at once.  Raises Unsupported, OSError."""
        try:
            import memray
        except ImportError as error:
            raise Unsupported(f"--mem-profile {MISSING}") from error
        path.touch()
        self._tracker = memray.Tracker(destination=memray.FileDestination(path, overwrite=True))
        self._tracker.__enter__()

    def keep(self) -> None:
        """It is written as it goes."""

    def close(self) -> None:
        """Ends it."""
        self._tracker.__exit__(None, None, None)


def beside(path: Path | None, part: str) -> Path | None:
    """The file of another process: `cpu.json` becomes `cpu.PART.json`."""
    return None if path is None else path.with_name(f"{path.stem}.{part}{path.suffix}")


def begin(cpu: Path | None, memory: Path | None) -> Profile:
    """Raises UsageError (both, or a file that cannot be written), Unsupported."""
    if cpu and memory:
        raise UsageError("--cpu-profile and --mem-profile exclude each other: the profilers use one hook")
    try:
        if cpu:
            return CpuProfile(cpu)
        return MemoryProfile(memory) if memory else NoProfile()
    except OSError as error:
        flag, path = ("--cpu-profile", cpu) if cpu else ("--mem-profile", memory)
        raise UsageError(
            f"{flag} {path}: {error.strerror or error}; name a file that can be written"
        ) from error


@contextmanager
def profiled(cpu: Path | None, memory: Path | None) -> Iterator[Profile]:
    """`begin`, and closed at the end, however it comes."""
    profile = begin(cpu, memory)
    try:
        yield profile
    finally:
        profile.close()


async def kept(profile: Profile, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and keep the profile meanwhile."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(KEEP)
            profile.keep()

    task = spawn("profile", keep())
    try:
        await work
    finally:
        await stop([task])
