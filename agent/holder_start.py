"""A holder's process: started, and connected to once it answers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

from appswitch.errors import AppSwitchError, Unavailable
from appswitch.interceptor.holder_client import HolderClient, Holding

LOG_NAME: Final = "holder.log"


def launch(module: str, run_dir: Path, pin: Path) -> subprocess.Popen[bytes]:
    """Start one; it outlives us: its own session, and no pipe of ours that would break under it.

    Raises Unavailable.
    """
    command = [sys.executable, "-P", "-m", module, str(run_dir), str(pin)]
    try:
        with _open_log(run_dir / LOG_NAME) as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
    except OSError as error:
        raise Unavailable(f"cannot start the holder: {error.strerror}") from error


async def answers(
    process: subprocess.Popen[bytes], run_dir: Path, within: float
) -> tuple[HolderClient, Holding]:
    """Wait until the new holder answers.  Raises Unavailable: it is ended then."""
    try:
        async with asyncio.timeout(within):
            while True:
                if process.poll() is not None:
                    raise Unavailable(f"the holder ended with status {process.returncode}: see {LOG_NAME}")
                try:
                    return connect(run_dir)
                except Unavailable:
                    await asyncio.sleep(0.02)
    except TimeoutError:
        process.kill()
        raise Unavailable(f"the holder does not answer within {within:g} s") from None


def connect(run_dir: Path) -> tuple[HolderClient, Holding]:
    """Connect to the holder that is there, and ask what it holds.  Raises AppSwitchError."""
    client = HolderClient.connect(run_dir)
    try:
        return client, client.holding()
    except AppSwitchError:
        client.close()
        raise


def _open_log(path: Path) -> IO[bytes]:
    """Where the holder writes; nowhere, where the disk is full."""
    try:
        return path.open("ab")
    except OSError:
        return open(os.devnull, "ab")
