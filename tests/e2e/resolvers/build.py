"""Makes the resolver programs; what this machine lacks a compiler for is skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
KINDS = ("glibc", "musl", "go", "c-ares", "node", "jvm")
SEARCHES = frozenset(KINDS) - {"node"}
"""Those that use the search list of resolv.conf."""
MUSL_MOST = 48
"""musl's MAXADDRS: it keeps no more addresses of a name."""
GO = shutil.which("go") or "/usr/local/go/bin/go"


def build(kind: str, into: Path) -> list[str]:
    """The argv of one resolver program, made below `into`."""
    into.mkdir(parents=True, exist_ok=True)
    match kind:
        case "glibc":
            return [_system_python(), str(SOURCES / "resolve.py")]
        case "musl":
            # The launcher's target and flags: zig compiles musl itself, and only once for both.
            zig = [
                sys.executable,
                "-m",
                "ziglang",
                "cc",
                "-target",
                "x86_64-linux-musl",
                "-static",
                "-Os",
                "-s",
            ]
            return _compile([*zig, str(SOURCES / "resolve.c")], into / "resolve-musl")
        case "go":
            if not Path(GO).exists():
                pytest.skip("no Go compiler here")
            env = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
            env |= {"GOFLAGS": ""}
            program = into / "resolve-go"
            command = [GO, "build", "-o", str(program), str(SOURCES / "resolve.go")]
            subprocess.run(command, env=env, check=True, timeout=240)
            return [str(program)]
        case "c-ares":
            if not (compiler := shutil.which("cc")) or not Path("/usr/include/ares.h").exists():
                pytest.skip("no C compiler or no c-ares headers (Debian: gcc libc-ares-dev) here")
            return _compile([compiler, str(SOURCES / "cares.c"), "-lcares"], into / "resolve-cares")
        case "node":
            if not (node := shutil.which("node")):
                pytest.skip("no node here")
            return [node, str(SOURCES / "resolve.js")]
        case "jvm":
            if not (javac := shutil.which("javac")):
                pytest.skip("no Java compiler here")
            subprocess.run([javac, "-d", into, SOURCES / "Resolve.java"], check=True, timeout=120)
            # -Xshare and one compiler tier: it starts in half the time, and looks names up just the same.
            return ["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", str(into), "Resolve"]
    raise AssertionError(kind)


def parse(output: str) -> dict[str, str]:
    """What a program printed, by argument."""
    return dict(line.split("=", 1) for line in output.splitlines())


def _system_python() -> str:
    return shutil.which("python3", path="/usr/bin:/bin") or sys.executable


def _compile(command: list[str], program: Path) -> list[str]:
    subprocess.run([*command, "-o", str(program)], check=True, timeout=240)
    return [str(program)]
