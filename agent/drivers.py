"""Which drivers this machine can use, and why not: `ax get drivers`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appswitch.agent.resources import DriverView

KERNEL_NEEDED: Final = (6, 1)
"""The oldest kernel of the kernel driver: bpf_set_retval in the hooks of connect() and bind()."""
_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_BPF = 12, 21, 39  # linux/capability.h


@dataclass(frozen=True, slots=True)
class Facts:
    """What the answer depends on."""

    release: str
    """uname -r"""
    capabilities: int
    """Effective ones, a bit each."""
    cgroup2: bool
    """A cgroup v2 hierarchy is mounted."""


def probe(in_use: str = "") -> Sequence[DriverView]:
    """Look at this machine with this process's rights; `in_use` names the driver that runs."""
    return judge(_facts(), in_use)


def judge(facts: Facts, in_use: str = "") -> Sequence[DriverView]:
    """The rows of the table."""
    reasons = _kernel_reasons(facts)
    later = "comes with a later release"
    return (
        DriverView(name="kernel", usable=not reasons, in_use=in_use == "kernel", reason="; ".join(reasons)),
        DriverView(name="user", usable=False, in_use=False, reason=later),
        DriverView(name="ptrace", usable=False, in_use=False, reason=later),
    )


def _kernel_reasons(facts: Facts) -> list[str]:
    reasons = []
    version = re.match(r"(\d+)\.(\d+)", facts.release)
    if version is None or (int(version[1]), int(version[2])) < KERNEL_NEEDED:
        wanted = ".".join(map(str, KERNEL_NEEDED))
        reasons.append(f"needs Linux {wanted} or newer, this is {facts.release}")

    def has(bit: int) -> bool:
        return bool(facts.capabilities >> bit & 1)

    if not (has(_CAP_SYS_ADMIN) or (has(_CAP_BPF) and has(_CAP_NET_ADMIN))):
        reasons.append("needs root (or CAP_BPF and CAP_NET_ADMIN)")
    if not facts.cgroup2:
        reasons.append("needs a mounted cgroup v2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup)")
    return reasons


def _facts() -> Facts:
    capabilities = 0
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("CapEff:"):
            capabilities = int(line.split()[1], 16)
    cgroup2 = any(
        line.split(" - ")[-1].startswith("cgroup2 ") for line in _lines(Path("/proc/self/mountinfo"))
    )
    return Facts(os.uname().release, capabilities, cgroup2)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
