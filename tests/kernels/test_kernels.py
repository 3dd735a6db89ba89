"""The short smoke test on Debian's own kernel, in qemu.  All of it: `python tests/kernels/run.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels import image, kernel, machine, run


@pytest.mark.skipif(bool(machine.missing()), reason=machine.missing() or "-")
@pytest.mark.timeout(600)  # half a minute on a quiet machine
def test_smoke_on_debians_kernel(tmp_path: Path) -> None:
    try:
        debian = kernel.from_package(kernel.PACKAGE, run.CACHE)
    except kernel.Missing as error:
        pytest.skip(str(error))
    initramfs = tmp_path / "initramfs"
    image.make(initramfs, debian.modules, run.command([], [], short=True), lean=True)
    status, console = machine.boot(debian.image, initramfs, 540)
    initramfs.unlink()
    assert status == 0, console[-6000:]
    assert console.count("\nok ") == 9, console[-6000:]
