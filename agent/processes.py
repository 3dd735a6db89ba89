"""The end of processes, our children or not."""

from __future__ import annotations

import asyncio
import os
import signal


async def terminate(pid: int) -> None:
    """SIGTERM, and SIGKILL if that has not worked within two seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            async with asyncio.timeout(2):
                return await end_of(pid)
        except ProcessLookupError:
            return
        except TimeoutError:
            continue


async def end_of(pid: int) -> None:
    """Wait for a process's end, be it our child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
