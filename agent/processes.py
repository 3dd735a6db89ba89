"""The end of processes, our children or not."""

from __future__ import annotations

import asyncio
import os
import signal


async def terminate(pid: int) -> None:
    """SIGTERM, and SIGKILL if that has not worked within two seconds."""
    try:
        descriptor = os.pidfd_open(pid)  # from here on nobody else can be meant by the number
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(descriptor, number)
                async with asyncio.timeout(2):
                    return await _readable(descriptor)
            except ProcessLookupError:
                return
            except TimeoutError:
                continue
    finally:
        os.close(descriptor)


async def end_of(pid: int) -> None:
    """Wait for a process's end, be it our child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await _readable(descriptor)
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    """Until the process of this pidfd has ended."""
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
