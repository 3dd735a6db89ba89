"""The holder: answers the socket() calls of apps that live in an empty namespace, and outlives the daemon.

    python -m appswitch.interceptor.inject RUN_DIR SOCK_MAP_PIN

It listens on RUN_DIR/holder.sock (`inject_wire.py`), makes sockets in its own network namespace, marks them
in the pinned sk_storage map, and goes on until SIGTERM.  Events go to standard error, a JSON object each.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from appswitch.errors import AppSwitchError, Conflict, Unsupported, UsageError
from appswitch.interceptor import abi, inject_control, inject_loop, inject_wire, seccomp
from appswitch.interceptor.inject_loop import Loop
from appswitch.interceptor.inject_stock import Maker
from appswitch.interceptor.libbpf import Map, obj_get

LOCK_NAME: Final = "holder.lock"
IDLE: Final = 1.0
"""Seconds without a call after which the watch sleeps until it is woken."""
MAX_FILES: Final = 1_048_576
"""Descriptors wanted: a handful for each app."""
MAX_LOG: Final = 4 << 20
"""Bytes of the log file before it begins anew: apps can cause events."""
_WAKE: Final = signal.SIGUSR1
_END: Final = (signal.SIGTERM, signal.SIGINT)


def log(event: str, **fields: object) -> None:
    """One event; lost rather than waited for where nobody reads it."""
    line = msgspec.json.encode({"ts": time.time(), "event": event, "part": "holder", **fields}) + b"\n"
    writable = select.poll()
    writable.register(2, select.POLLOUT)
    try:
        found = os.fstat(2)
        if stat.S_ISREG(found.st_mode) and found.st_size > MAX_LOG:
            os.ftruncate(2, 0)
        if writable.poll(0):
            os.write(2, line[:4096])
    except OSError:
        return


def raise_limits() -> None:
    """Many descriptors, and the last to be killed when memory runs out.  What is not permitted is logged."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, MAX_FILES), max(hard, MAX_FILES)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        log("holder-limit", limit="files", value=hard)
    try:
        Path("/proc/self/oom_score_adj").write_text("-1000")
    except OSError as error:
        log("holder-limit", limit="oom_score_adj", error=str(error))


def lock(run_dir: Path) -> int:
    """Makes sure that there is one holder on a run directory.  Raises Conflict."""
    fd = os.open(run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(f"another holder serves {run_dir}") from error
    return fd


def open_storage(pin: Path) -> Map:
    """The pinned map in which a socket's owner is written.  Raises Unsupported."""
    try:
        return Map(obj_get(pin), "sockets", 4, abi.SOCK_SIZE)
    except OSError as error:
        raise Unsupported(f"the pinned map {pin} does not open: {error.strerror}") from error


def watch(loop: Loop) -> int:
    """Waits for the end, and leaves threads behind that an app holds up.  Returns the exit status."""
    me = threading.get_ident()
    failed: list[BaseException] = []
    told: set[int] = set()

    def crashed(error: BaseException) -> None:
        failed.append(error)
        signal.pthread_kill(me, signal.SIGTERM)

    thread = inject_loop.start(loop, loop.seat, crashed)
    seen, quiet = (loop.seat, -1), 0.0
    while True:
        if quiet >= IDLE and loop.seat.app is None:
            loop.watch_sleeps = True
            idle = loop.seat.app is None and (loop.seat, loop.seat.call) == seen
        else:
            idle = False
        received = signal.sigwait((*_END, _WAKE)) if idle else _wait(inject_loop.TICK)
        loop.watch_sleeps = False
        if received in _END:
            break
        now = (loop.seat, loop.seat.call)
        if now != seen:
            quiet = 0.0
        elif loop.seat.app is None:
            quiet += inject_loop.TICK
        elif loop.replace(*seen):
            app = seen[0].left_with
            if app is not None and app.id not in told:  # a slow app is slow many times a second
                told.add(app.id)
                log("holder-held-up", app=f"{app.id:08x}")
            thread = inject_loop.start(loop, loop.seat, crashed)
            now, quiet = (loop.seat, -1), 0.0
        seen = now
    loop.stop()
    thread.join(1.0)
    if failed:
        log("holder-crashed", error=repr(failed[0]))
        return AppSwitchError.exit_code
    return 0


def _wait(seconds: float) -> int:
    received = signal.sigtimedwait((*_END, _WAKE), seconds)
    return received.si_signo if received else 0


def run(run_dir: Path, pin: Path) -> int:
    """Everything from start to end.  Raises AppSwitchError, OSError."""
    seccomp.check_sizes()
    # Before any thread is there: a signal must not interrupt a call in hand.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_END, _WAKE))
    storage = open_storage(pin)
    held = lock(run_dir)
    raise_limits()
    me = threading.get_ident()
    loop = Loop(Maker(storage), lambda: signal.pthread_kill(me, _WAKE), log)
    listener = inject_control.listen(run_dir)
    inject_control.Door(listener, loop, log)
    gc.collect()
    gc.freeze()
    status = watch(loop)
    (run_dir / inject_wire.SOCKET_NAME).unlink(missing_ok=True)
    os.close(held)
    return status


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 after SIGTERM, else that of the error, which is printed."""
    try:
        if len(arguments) != 2:
            raise UsageError("usage: python -m appswitch.interceptor.inject RUN_DIR SOCK_MAP_PIN")
        return run(Path(arguments[0]), Path(arguments[1]))
    except AppSwitchError as error:
        print(f"holder: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"holder: {error}", file=sys.stderr)
        return Unsupported.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
