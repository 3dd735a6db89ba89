"""Tests of ours on another kernel, in qemu: python tests/kernels/run.py [--package NAME] [TEST…].

Needs qemu-system-x86 and, for --package, apt-get; no root, no network in the machine.  Without TEST: the
smoke test.  `--kernel VMLINUZ --modules DIR` takes a kernel that lies here instead.  See docs/kernels.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels import image, kernel, machine

CACHE = Path(__file__).with_name("_cache")
SMOKE = Path(__file__).with_name("smoke.sh")
SLOWNESS = 10
"""Deadlines of our tests are stretched so often: emulation is that slow."""


def command(tests: list[str], options: list[str], *, short: bool = False) -> str:
    """The line that the machine runs: pytest, or without tests the smoke test."""
    line = ["sh", str(SMOKE), str(image.ROOT), sys.executable, *["short"][: int(short)]]
    if tests:
        pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=0", "--color=no"]
        line = ["env", f"TEST_SLOWNESS={SLOWNESS}", sys.executable, *pytest, *options, *tests]
    return f"cd {shlex.quote(str(image.ROOT))}; uname -r; {shlex.join(line)}"


def main() -> int:
    """The script; its exit status is pytest's in the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tests", nargs="*", metavar="TEST", help="as for pytest (default: the smoke test)")
    parser.add_argument("--package", default=kernel.PACKAGE, help="Debian's kernel (default: %(default)s)")
    parser.add_argument("--kernel", type=Path, metavar="VMLINUZ", help="a kernel image")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="the folder of its modules")
    parser.add_argument("--pytest", default="", metavar="OPTIONS", help="options of pytest, e.g. '-x -k udp'")
    parser.add_argument("--shell", default="", metavar="LINE", help="run this line instead of tests")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds (default: %(default)g)")
    args = parser.parse_args()
    if why := machine.missing():
        print(why, file=sys.stderr)
        return 69
    try:
        chosen = (
            kernel.from_files(args.kernel, args.modules or args.kernel.parent)
            if args.kernel
            else kernel.from_package(args.package, CACHE)
        )
    except kernel.Missing as error:
        print(error, file=sys.stderr)
        return 69
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="axk-") as folder:
        initramfs = Path(folder) / "initramfs"
        line = args.shell or command(args.tests, shlex.split(args.pytest))
        image.make(initramfs, chosen.modules, line, lean=not args.tests)
        print(f"initramfs: {initramfs.stat().st_size >> 20} MiB", flush=True)
        status, _ = machine.boot(
            chosen.image, initramfs, args.timeout, follow=lambda text: print(text, end="", flush=True)
        )
    print(f"{chosen.image.name}: status {status} after {time.monotonic() - began:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
