"""Compiles `bpf/*.bpf.c` and `launcher/*.c` with zig from PyPI: no system compiler is needed.

Run by `make venv` (as a module), and by setup.py for wheels and editable installs.  Each output
remembers what it was made from, so that nothing is compiled twice.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appswitch.errors import AppSwitchError, Unsupported

HERE = Path(__file__).resolve().parent
BUILT = HERE / "_built"
"""Where a source tree keeps the outputs (git ignores it)."""

ARCHITECTURES = ("x86_64", "aarch64")
"""What launchers are made for, on any machine; names as `uname -m` says them."""

_COMPILE_DEADLINE = 600.0
"""Seconds for one output: the first ever build also compiles musl, on a slow machine for minutes."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file to make: `zig cc ARGUMENTS SOURCES -o NAME`."""

    name: str
    arguments: tuple[str, ...]
    sources: tuple[Path, ...]
    headers: tuple[Path, ...]

    def fingerprint(self) -> str:
        """Changes whenever the output would: arguments and the bytes of all sources."""
        digest = hashlib.sha256("\0".join(self.arguments).encode())
        for path in (*self.sources, *self.headers):
            digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


def outputs() -> list[Output]:
    """All that there is to make, from the sources that exist."""
    bpf = HERE / "bpf"
    # Everything in bpf/ may be included by any object.
    included = tuple(sorted(path for path in bpf.glob("*.[ch]") if not path.name.endswith(".bpf.c")))
    # -g makes the BTF that libbpf and abi.py's checks read; unwind tables are sections it rejects.
    # v3: atomics that return the old value (kernel 5.12).
    flags = (
        "-target",
        "bpfel-freestanding",
        "-mcpu=v3",
        "-O2",
        "-g",
        "-c",
        "-fno-asynchronous-unwind-tables",
        "-Wall",
    )
    found = [
        Output(source.name.removesuffix(".c") + ".o", flags, (source,), included)
        for source in sorted(bpf.glob("*.bpf.c"))
    ]
    launcher = HERE / "launcher"
    sources, headers = tuple(sorted(launcher.glob("*.c"))), tuple(sorted(launcher.glob("*.h")))
    common = ("-static", "-Os", "-s", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
    for machine in ARCHITECTURES if sources else ():
        target = ("-target", f"{machine}-linux-musl")
        found.append(Output(launcher_name(machine), target + common, sources, headers))
    return found


def launcher_name(machine: str) -> str:
    """File name of the launcher for `machine` inside the package."""
    return f"ax-{machine}"


def build(directory: Path = BUILT) -> list[Path]:
    """Makes what is missing or out of date in `directory`; returns the paths of all outputs.

    Raises Unsupported when zig is not installed or a source does not compile.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return [_make(output, directory) for output in outputs()]


def _make(output: Output, directory: Path) -> Path:
    path, stamp = directory / output.name, directory / f".{output.name}.sha256"
    fingerprint = output.fingerprint()
    if path.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return path
    scratch = directory / f".{output.name}.{os.getpid()}"
    arguments = list(output.arguments)
    if "-c" in arguments:  # a BPF target has no system headers of its own
        include = _zig_home() / "lib" / "libc" / "include"
        arguments += ["-I", str(include / "any-linux-any"), "-I", str(include / "x86-linux-any")]
    command = [sys.executable, "-P", "-m", "ziglang", "cc", *arguments, *map(str, output.sources)]
    try:
        result = subprocess.run(
            [*command, "-o", str(scratch)], capture_output=True, text=True, timeout=_COMPILE_DEADLINE
        )
        if result.returncode:
            raise Unsupported(f"{output.name} does not compile:\n{result.stderr.strip()}")
        if result.stderr:
            print(result.stderr, file=sys.stderr, end="")
        scratch.replace(path)  # programs that run keep their old file
    except subprocess.TimeoutExpired as expired:
        raise Unsupported(f"{output.name}: zig took longer than {_COMPILE_DEADLINE:.0f} s") from expired
    finally:
        scratch.unlink(missing_ok=True)
    stamp.write_text(fingerprint)
    return path


def _zig_home() -> Path:
    """Directory of zig and of the headers it brings."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        raise Unsupported("zig is not installed: pip install ziglang")
    return Path(spec.submodule_search_locations[0])


def install(target: Path, directory: Path = BUILT) -> None:
    """Puts this machine's launcher at `target`, the path of the `ax` command."""
    source = directory / launcher_name(platform.machine())
    if not source.exists():
        raise Unsupported(f"no launcher for {platform.machine()}: there are {', '.join(ARCHITECTURES)}")
    content = source.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.chmod(0o755)
    scratch.replace(target)


def main(arguments: Sequence[str]) -> int:
    """`python -m appswitch.interceptor.build [--install PATH]`"""
    parser = argparse.ArgumentParser(prog="build", description="compile the BPF programs and the launchers")
    parser.add_argument("--install", type=Path, metavar="PATH", help="put this machine's launcher there")
    options = parser.parse_args(arguments)
    try:
        build()
        if options.install:
            install(options.install)
    except AppSwitchError as error:
        print(f"build: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
