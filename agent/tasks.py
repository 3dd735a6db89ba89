"""The one way to start a background task: named, referenced, and never silent about its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_running: set[asyncio.Task[Any]] = set()
"""asyncio keeps only weak references: a task nobody holds may vanish in the middle of its work."""


def spawn(
    name: str, work: Coroutine[Any, Any, Any], failed: Callable[[str, BaseException], None] | None = None
) -> asyncio.Task[Any]:
    """Start `work` as a task called `name`; `failed(name, error)` hears of an error that ended it.

    Without `failed` the event loop's exception handler hears of it.  Cancellation is no error.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)

    def ended(done: asyncio.Task[Any]) -> None:
        _running.discard(done)
        if done.cancelled() or (error := done.exception()) is None:
            return
        if failed is not None:
            failed(name, error)
        else:
            done.get_loop().call_exception_handler(
                {"message": f"task {name} ended by {error!r}", "exception": error, "task": done}
            )

    task.add_done_callback(ended)
    return task


async def stop(tasks: list[asyncio.Task[Any]], within: float = 2.0) -> None:
    """Cancel tasks and wait at most `within` seconds for their ends."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=within)
