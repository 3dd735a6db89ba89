"""The `ax` command but for `run`, which is the static launcher's.

Sub-commands are imported when asked for: `ax get` is used in loops and must start fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from appswitch.errors import AppSwitchError, UsageError

COMMANDS: Final = {
    "daemon": ("cli_daemon", "Start the AppSwitch daemon"),
    "run": ("", "Run an application under AppSwitch"),
    "get": ("cli_get", "Get active resources"),
    "attach": ("cli_attach", "Make an app of a container, pod or process that runs already"),
    "detach": ("cli_detach", "Let an attached app go"),
    "oci-hook": ("cli_oci_hook", "Attach a container by its annotations: a hook of an OCI runtime"),
    "create": ("cli_create", "Create a resource"),
    "delete": ("cli_delete", "Delete a resource"),
    "del": ("cli_delete", "The same as delete"),
    "explain": ("cli_explain", "Say what an application gets for a destination, and why"),
    "conformance": ("cli_conformance", "Judge an xDS client by what it says to a scripted server"),
    "version": ("", "Print the version"),
    "help": ("", "Print this text"),
}
"""Sub-command to (module with `main(argv) -> int`, help line)."""

EXIT_IO: Final = 74  # EX_IOERR
EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    name = argv[0] if argv and argv[0] in COMMANDS else ""
    prefix = f"ax {name}" if name else "ax"
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except AppSwitchError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `ax get … | head`; keep Python's own flush at exit from complaining
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{prefix}: {error.strerror or error}", file=sys.stderr)
        return EXIT_IO
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _dispatch(argv: Sequence[str]) -> int:
    command = argv[0] if argv else "help"
    if command in ("help", "-h", "--help"):
        print(usage(), end="")
        return 0
    if command in ("version", "--version"):
        print(f"ax {version()}")
        return 0
    if command == "run":
        raise UsageError("is done by the launcher `ax`, not by `python -m appswitch`: use the ax on PATH")
    if command not in COMMANDS:
        kind = "flag" if command.startswith("-") else "command"
        raise UsageError(f"unknown {kind} {command!r} (ax -h lists the commands)")
    handler: Callable[[Sequence[str]], int] = import_module(f"appswitch.agent.{COMMANDS[command][0]}").main
    return handler(argv[1:])


def usage() -> str:
    """What `ax -h` prints."""
    names = {"delete": "delete, del"}
    rows = "".join(
        f"  {names.get(name, name):<13}{text}\n" for name, (_, text) in COMMANDS.items() if name != "del"
    )
    return f"Usage: ax COMMAND [flags]\n\nCommands:\n{rows}\nax COMMAND -h says more about a command.\n"


def version() -> str:
    """The installed version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("appswitch")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
