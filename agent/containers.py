"""What `ax attach` is told, as a cgroup: a process id, a cgroup's path, or a container's id or name.

Of containers nothing but what their runtimes leave on disk and in the names of cgroups is used: runc's
state files (docker and containerd have theirs in folders of their own), and `docker-ID.scope` and its kin.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from appswitch.errors import Conflict, InvalidInput, NotFound
from appswitch.interceptor.cgroup import of_process

STATES: Final = (
    "runc/{}/state.json",
    "crun/{}/status",
    "docker/runtime-runc/moby/{}/state.json",
    "containerd/runc/k8s.io/{}/state.json",
    "containerd/runc/moby/{}/state.json",
    "containerd/runc/default/{}/state.json",
)
"""Below /run: where runtimes keep a container's state."""
DOCKER: Final = Path("/var/lib/docker/containers")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SHORTEST: Final = 8
"""Characters of an id's beginning that name a container."""


class _State(msgspec.Struct, frozen=True):
    """Of runc's state.json and crun's status, what we need."""

    init_process_pid: int = 0
    pid: int = 0


class _Docker(msgspec.Struct, frozen=True):
    """Of docker's config.v2.json."""

    ID: str = ""
    Name: str = ""


_state = msgspec.json.Decoder(_State)
_docker = msgspec.json.Decoder(_Docker)


def decode_state(data: bytes) -> int:
    """The first process of a container, by its runtime's state file.  Pure; raises InvalidInput."""
    try:
        state = _state.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"state of a container: {error}") from error
    pid = state.init_process_pid or state.pid
    if not 0 < pid < 1 << 22:
        raise InvalidInput(f"state of a container: process {pid}")
    return pid


def find(target: str, root: Path, run: Path = Path("/run"), docker: Path = DOCKER) -> Path:
    """The cgroup's directory below `root`.  Blocks; raises NotFound, Conflict (several), InvalidInput."""
    if target.startswith("/"):
        return _of_path(target, root)
    if target.isascii() and target.isdecimal() and Path(f"/proc/{target}").exists():
        return _of_pid(int(target), root, f"process {target}")
    if not _WORD.fullmatch(target):
        raise InvalidInput(f"{target!r} is no process id, cgroup path or container")
    for name in (target, _docker_id(target, docker)):
        for pattern in STATES if name else ():
            try:
                pid = decode_state((run / pattern.format(name)).read_bytes())
            except (OSError, InvalidInput):
                continue
            return _of_pid(pid, root, f"container {target!r}")
    found = _by_name(_docker_id(target, docker) or target, root)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"/{path.relative_to(root)}" for path in found[:4])
        raise Conflict(f"{target!r} names several cgroups ({listed}); give one by its path")
    raise NotFound(
        f"no process, cgroup or container {target!r} here; give the process id of one of its programs"
    )


def _of_pid(pid: int, root: Path, what: str) -> Path:
    try:
        return root / of_process(pid).lstrip("/")
    except OSError as error:
        raise NotFound(f"{what} is gone") from error


def _of_path(target: str, root: Path) -> Path:
    path = Path(os.path.normpath(target))
    path = path if path.is_relative_to(root) else root / str(path).lstrip("/")
    if not (path / "cgroup.procs").exists():
        raise NotFound(f"no cgroup {target} (cgroup v2 is mounted at {root})")
    return path


def _by_name(target: str, root: Path) -> list[Path]:
    """Cgroups that have the id in their names; of nested ones the outermost."""
    if len(target) < SHORTEST:
        return []
    found: list[Path] = []
    # an id, whole or (hexadecimal) its beginning, between the words that runtimes put around it
    whole = "" if re.fullmatch(r"[0-9a-f]+", target) else r"(?:$|[-.:])"
    wanted = re.compile(rf"(?:^|[-.:]){re.escape(target)}{whole}")
    for folder, names, _ in os.walk(root):
        for name in [name for name in names if wanted.search(name)]:
            found.append(Path(folder, name))
            names.remove(name)
    return sorted(found)


def _docker_id(target: str, docker: Path) -> str:
    """The id of docker's container of this name; "" where there is none."""
    try:
        folders = list(docker.iterdir())
    except OSError:
        return ""
    for folder in folders:
        try:
            known = _docker.decode((folder / "config.v2.json").read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if known.Name.lstrip("/") == target:
            return known.ID
    return ""
