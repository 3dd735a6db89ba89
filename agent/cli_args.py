"""What the sub-commands share: flags in argparse with our exit codes, and the daemon's address."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from appswitch.agent.client import DEADLINE, Client
from appswitch.errors import UsageError

DEFAULT_RUN_DIR = Path("/var/run/appswitch")
"""As settings.py has it; not imported from there, because that costs `ax get` 40 ms."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors as UsageError (exit 64, not 2) and no guessed abbreviations."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for every mistake."""
        raise UsageError(f"{message} ({self.prog} -h lists the flags)")


def parser(prog: str, description: str) -> Parser:
    """A parser with the flag that all commands have."""
    made = Parser(prog, description)
    made.add_argument(
        "--run-dir", metavar="DIR", help=f'the daemon\'s (default: AX_RUN_DIR or "{DEFAULT_RUN_DIR}")'
    )
    return made


def client(run_dir: str | None, wait: float = 0) -> Client:
    """The daemon of `--run-dir`, AX_RUN_DIR or the default; `wait`: seconds it is asked to take."""
    path = Path(run_dir or os.environ.get("AX_RUN_DIR") or DEFAULT_RUN_DIR)
    return Client(path, DEADLINE + wait)


def wants_help(args: list[str]) -> bool:
    """Whether -h stands where a resource's name should."""
    return bool(args) and args[0] in ("-h", "--help")


def write(text: str) -> None:
    """To standard output, whatever its encoding can hold."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
