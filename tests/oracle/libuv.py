"""libuv's own tests: one program, built here from Debian's source, that runs each of them by its name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from oracle import source

PACKAGE = "libuv1"
_OTHERS = re.compile(
    "aix|bsd|cygwin|darwin|fsevents|getentropy|haiku|hurd|ibmi|kqueue|no-|os390|posix-|pthread-|qnx|sun|sysinfo"
)
"""Files of src/unix for other systems."""
_FLAGS = ("-O1", "-g0", "-w", "-D_GNU_SOURCE", "-Iinclude", "-Isrc", "-Itest")
_USER = 65534
"""nobody: libuv refuses to be tested as root."""
AS_NOBODY = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")


def build() -> Path:
    """The program, compiled once.  Raises source.Missing."""
    folder = source.fetch(PACKAGE, "(src|include|test)/")
    program = folder / "uv_run_tests"
    if not program.exists():
        sources = [*(folder / "src").glob("*.c"), *(folder / "src" / "unix").glob("*.c")]
        sources = [path for path in sources if not _OTHERS.search(path.name)]
        tests = [path for path in (folder / "test").glob("*.c") if not re.search("benchmark|-win", path.name)]
        library = ["-shared", "-fPIC", "-fvisibility=hidden", "-DBUILDING_UV_SHARED=1", "-o", "libuv.so"]
        _compile(folder, [*library, *map(str, sources)])
        _compile(
            folder,
            ["-DUSING_UV_SHARED=1", *map(str, tests), "libuv.so", "-Wl,-rpath,$ORIGIN", "-o", program.name],
        )
    return program


def _compile(folder: Path, arguments: list[str]) -> None:
    zig = [sys.executable, "-P", "-m", "ziglang", "cc", *_FLAGS, *arguments, "-lpthread", "-ldl", "-lrt"]
    done = subprocess.run(zig, cwd=folder, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise source.Missing(f"libuv does not compile: {done.stderr[-1000:]}")


def tests() -> dict[str, list[str]]:
    """Each test's name and command."""
    program = build()
    for folder in program.resolve().parents:  # nobody must get there
        if not folder.stat().st_mode & 0o001:
            raise source.Missing(f"{folder} is closed to the user that libuv is tested as")
    listed = subprocess.run([*AS_NOBODY, program, "--list"], capture_output=True, text=True, timeout=60)
    names = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    return {f"libuv.{name}": [*AS_NOBODY, str(program), name] for name in names}
