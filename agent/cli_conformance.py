"""`ax conformance --client CMD…`: is an ADS client a good one?"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from appswitch.agent.cli_args import Parser
from appswitch.errors import InvalidInput, UsageError
from appswitch.xds.conformance.catalogue import CASES
from appswitch.xds.conformance.player import PATIENCE
from appswitch.xds.conformance.report import junit, line, summary
from appswitch.xds.conformance.subject import Command
from appswitch.xds.conformance.suite import run, select
from appswitch.xds.conformance.verdict import Outcome, Verdict

EPILOG = """\
CMD is started anew for each case, with {address}, {host}, {port}, {node}, {mode} (sotw or delta), {case}
and {directory} (its own, removed afterwards) replaced in its arguments; they are variables of its
environment, too: AX_CONFORMANCE_ADDRESS, ….
The probe gets VIP:port as one more argument, and prints what that leads to, one endpoint a line."""
FAILED = 1
"""Exit code where a case failed."""


def main(argv: Sequence[str]) -> int:
    """Print a line for each case; exit code 1 if one failed."""
    args = _parse(argv)
    cases = select(CASES, args.case)
    if args.list:
        for case in cases:
            print(f"{case.id}  {case.title}  ({case.source})")
        return 0
    if not args.client:
        raise UsageError("--client CMD… is missing: which client shall be judged?")
    outcomes = asyncio.run(_run(args))
    print(summary(outcomes))
    if args.junit:
        try:
            args.junit.write_text(junit(outcomes, shlex.join(args.client)), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--junit {args.junit}: {error.strerror}") from error
    return FAILED if any(outcome.verdict is Verdict.FAILED for outcome in outcomes) else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    flags = Parser("ax conformance", "Judge an xDS client by what it says to a scripted ADS server.")
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.epilog = EPILOG
    flags.add_argument("--case", metavar="CSV", default="", help="only these, as C01,C02")
    flags.add_argument("--probe", metavar="CMD", default="", help="says what the client has applied")
    flags.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit report, too")
    flags.add_argument(
        "--jobs", metavar="N", default=os.cpu_count() or 1, type=int, help="cases at once (default: CPUs)"
    )
    flags.add_argument(
        "--patience",
        metavar="SECONDS",
        default=PATIENCE,
        type=float,
        help=f"until what must be seen (default: {PATIENCE:g})",
    )
    flags.add_argument("--list", action="store_true", help="list the cases, judge nobody")
    flags.add_argument(
        "--client",
        metavar="CMD",
        nargs=argparse.REMAINDER,
        help="the client, its arguments; the last flag",
    )
    args = flags.parse_args(argv)
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: at least 1")
    if not 0 < args.patience < float("inf"):
        raise UsageError(f"--patience {args.patience:g}: seconds, more than 0")
    try:
        args.probe = shlex.split(args.probe)
    except ValueError as error:
        raise InvalidInput(f"--probe {args.probe}: {error}") from error
    return args


async def _run(args: argparse.Namespace) -> list[Outcome]:
    """SIGTERM ends the clients, too."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await run(
            select(CASES, args.case),
            lambda: Command(args.client, args.probe),
            jobs=args.jobs,
            patience=args.patience,
            report=lambda outcome: print(line(outcome), flush=True),
        )
    except asyncio.CancelledError:
        with suppress(ValueError):
            sys.stdout.flush()
        raise KeyboardInterrupt from None
