"""The run directory: one daemon each, known to the kernel's pins by a name of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from appswitch.errors import Conflict, Unsupported

LOCK_NAME: Final = "lock"
BPF_ROOT: Final = Path("/sys/fs/bpf/appswitch")


class RunDir:
    """A locked run directory; the lock ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Make and lock it.  Raises Conflict (another daemon), Unsupported (no right, no such place)."""
        try:
            _check_owner(path)  # before anything is made by way of it
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            _check_owner(path)
            self._lock = os.open(
                path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
            )
        except OSError as error:
            hint = ": run as root, or choose another with --run-dir" if os.geteuid() else ""
            raise Unsupported(f"run directory {path}: {error.strerror}{hint}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            number = other or "unknown"
            raise Conflict(
                f"another daemon (pid {number}) runs on {path}: stop it, or give another --run-dir"
            ) from error
        try:  # for messages only
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass
        self.path = path

    @property
    def tag(self) -> str:
        """A name for this directory in places that all daemons of the machine share (bpffs admits no '.')."""
        real = os.fsencode(self.path.resolve())
        word = re.sub(r"[^A-Za-z0-9_-]", "_", self.path.name) or "run"
        return f"{word}-{hashlib.sha256(real).hexdigest()[:8]}"

    @property
    def pin_dir(self) -> Path:
        """Where this daemon's BPF maps are pinned."""
        return BPF_ROOT / self.tag

    def close(self) -> None:
        """Let another daemon in."""
        os.close(self._lock)


def _check_owner(path: Path) -> None:
    """Raises Unsupported where others may put links in the place of our files, or sockets in that of ours."""
    shown = Path(os.path.abspath(path))
    real = shown.resolve()
    for place in (shown, *shown.parents, real, *real.parents):
        try:
            found = place.lstat()
        except FileNotFoundError:
            continue
        mode = found.st_mode
        # in a sticky folder, /tmp say, nobody renames what is another's
        shared = stat.S_ISDIR(mode) and mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid in (0, os.geteuid()) and not (shared and (place == real or not mode & stat.S_ISVTX)):
            continue
        raise Unsupported(
            f"run directory {path}: others than root may write to or replace {place} (owner {found.st_uid}, "
            f"mode {stat.S_IMODE(mode):o}): mend that, or choose another with --run-dir"
        )
