"""Builds and runs the fuzzer of the launcher's C: python tests/fuzz/launcher.py [--count N] [--seed N].

A C compiler of the machine's gives it AddressSanitizer; else zig's build traps undefined behaviour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAUNCHER = HERE.parents[1] / "interceptor" / "launcher"
_FLAGS = ("-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-include", "stdarg.h", "-Wall", f"-I{LAUNCHER}")


def build(folder: Path) -> tuple[Path, str]:
    """The program, and which sanitizers watch it."""
    target, source = folder / "launcher", str(HERE / "launcher.c")
    zig = [sys.executable, "-P", "-m", "ziglang", "cc"]
    ways = [([*zig, "-fsanitize=undefined", "-fsanitize-trap=undefined"], "undefined")]
    if compiler := shutil.which("gcc") or shutil.which("clang"):
        ways.insert(0, ([compiler, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], "address"))
    said = ""
    for command, name in ways:
        argv = [*command, *_FLAGS, source, "-o", str(target)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return target, name
        said += done.stderr
    raise AssertionError(said)


def run(program: Path, count: int, seed: int, timeout: float) -> subprocess.CompletedProcess[str]:
    """Its end; status 0 where nothing was found."""
    # what fail() leaves behind is the process's to free
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    argv = [str(program), str(count), str(seed)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout)


def main() -> int:
    """The script; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program, sanitizer = build(Path(folder))
        began = time.monotonic()
        done = run(program, args.count, args.seed, 3600)
        print(f"launcher: {args.count} inputs, sanitizer: {sanitizer}, {time.monotonic() - began:.0f} s")
        print(f"status {done.returncode}\n{done.stderr[-4000:]}" if done.returncode else "faults: 0")
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
