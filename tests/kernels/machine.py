"""Boots a kernel with an initramfs, by software emulation and without a network, and reads its console."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

QEMU = "qemu-system-x86_64"
MEMORY = "1536M"
_CPU = "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-rtm,-invpcid"
"""A third faster than "max", whose newest features cost emulation much; less what it cannot emulate."""
_STATUS = re.compile(r"^exit-status: (\d+)$", re.MULTILINE)


def missing() -> str:
    """Why no machine can be had here, or nothing."""
    if os.uname().machine != "x86_64":
        return "the kernels are for x86_64"
    return "" if shutil.which(QEMU) else f"no {QEMU} here (Debian: qemu-system-x86)"


def boot(
    image: Path,
    initramfs: Path,
    timeout: float,
    cpus: int = 2,
    follow: Callable[[str], None] = lambda _: None,
) -> tuple[int, str]:
    """The status of the command in the initramfs, and the console; 255 where it did not come to its end.

    `follow` hears each piece of the console as it comes.
    """
    argv = [QEMU, "-accel", "tcg,thread=multi", "-cpu", _CPU, "-smp", str(cpus), "-m", MEMORY]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"]
    argv += ["-serial", "stdio", "-kernel", str(image), "-initrd", str(initramfs)]
    # mitigations cost emulation much and say nothing about us; panic=-1 with -no-reboot ends qemu
    argv += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    said = []
    deadline = time.monotonic() + timeout
    with (
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as qemu,
        selectors.DefaultSelector() as selector,
    ):
        assert qemu.stdout is not None
        selector.register(qemu.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            if not (data := os.read(qemu.stdout.fileno(), 65536)):
                break
            said.append(data.decode(errors="replace").replace("\r", ""))
            follow(said[-1])
        else:
            said.append(f"\nnot done within {timeout:g} s\n")
        qemu.kill()
    console = "".join(said)
    status = _STATUS.search(console)
    return (int(status[1]) if status else 255), console
