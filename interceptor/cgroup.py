"""An app's control group (cgroup v2): made, entered, asked whether anybody lives, removed.

Source: Documentation/admin-guide/cgroup-v2.rst.  Works on hybrid hosts too, where cgroup v2 is
mounted beside version 1.
"""

from __future__ import annotations

import errno
import os
import re
import time
from functools import lru_cache
from pathlib import Path

from appswitch.errors import Unsupported

FALLBACK = "appswitch"
"""Cgroup below the root for apps whose caller's own cgroup admits no child."""
FREEZE_DEADLINE = 1.0
"""Seconds for all threads of a cgroup to stop."""
_OURS = re.compile(r"ax-[0-9a-f]+")
"""No more than that: out of `ax-team.slice`, somebody's limits, no app may go."""


@lru_cache(maxsize=1)
def cgroup_root() -> Path:
    """Where cgroup v2 is mounted.  Raises Unsupported if it is not."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise Unsupported(
        "no cgroup v2 is mounted here: mount one with: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def of_process(pid: int) -> str:
    """The process's cgroup below the root, starting with '/'.  Raises OSError if it is gone."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise OSError(errno.ENOENT, f"process {pid} has no cgroup v2")


def create(pid: int, app_id: str) -> Path:
    """Makes `ax-ID` below the process's own cgroup, so that its limits and accounting hold.

    An app's cgroup is not nested in another app's: then it is made beside that one.  Where the
    caller's cgroup distributes controllers it may hold no processes in itself, but children it
    may have.  Raises OSError; EAGAIN: it may have no (more) children, and going elsewhere would
    be a way out of its limits for whoever can forbid them.
    """
    root = cgroup_root()
    parent = root
    for part in Path(of_process(pid).lstrip("/")).parts:
        if _OURS.fullmatch(part):
            break  # also where the app made cgroups of its own below: all programs on the way run
        parent /= part
    try:
        made = parent / f"ax-{app_id}"
        made.mkdir()
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.EAGAIN):
            raise
        made = root / FALLBACK / f"ax-{app_id}"
        made.parent.mkdir(exist_ok=True)
        made.mkdir()
    return made


def move(pid: int, cgroup: Path) -> None:
    """Raises OSError (ESRCH: the process is gone)."""
    (cgroup / "cgroup.procs").write_text(str(pid))


def gains_no_privileges(cgroup: Path) -> bool:
    """Whether no thread in it can gain privileges by exec (PR_SET_NO_NEW_PRIVS), now or ever.

    Looked at while all are frozen, so that none can make another meanwhile; the flag is inherited
    and cannot be taken back (prctl(2)).  False also where they do not freeze within a second.
    """
    freeze = cgroup / "cgroup.freeze"
    freeze.write_text("1")
    try:
        deadline = time.monotonic() + FREEZE_DEADLINE
        while "frozen 1" not in (cgroup / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        threads = (cgroup / "cgroup.threads").read_text().split()
        return all("NoNewPrivs:\t1" in Path(f"/proc/{thread}/status").read_text() for thread in threads)
    finally:
        freeze.write_text("0")


def populated(cgroup: Path) -> bool:
    """Whether any process lives in it or below; False if it is gone."""
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def pids(cgroup: Path) -> list[int]:
    """Processes in it and below."""
    found: list[int] = []
    for folder, _, _ in os.walk(cgroup):
        try:
            found += map(int, Path(folder, "cgroup.procs").read_text().split())
        except OSError:  # gone meanwhile, or of threads alone
            continue
    return found


def numbers(cgroup: Path) -> list[int]:
    """The kernel's numbers of it, first, and of those below; empty: it is gone."""
    found = []
    for folder, _, _ in os.walk(cgroup):
        try:
            found.append(os.stat(folder).st_ino)
        except FileNotFoundError:
            continue
    return found


def remove(cgroup: Path) -> bool:
    """Removes it with the cgroups that the app made below; False while something lives there."""
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return not cgroup.exists()
    return True
