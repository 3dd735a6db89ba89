"""Programs' own suites under `ax run` against outside: python tests/oracle/run.py [SUITE…].

Root, and a built tree (`make venv`).  Everything runs in a network namespace without a route out.
Prints every difference; exits 1 where one is not explained (tests/oracle/explained.toml).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.node import Node

from oracle import compare, drive, suites

REPEAT = 3
"""Tests that differ are run so often again, on their own and on both sides: chance is not a difference."""


def check(node: Node, suite: suites.Suite, places: list[str], only: list[str]) -> list[compare.Difference]:
    """Runs one suite everywhere; prints the explained differences and returns the others that stood."""
    known = compare.explained()
    outside = _run(node, "outside", suite, only)
    stood = []
    for place in places:
        inside = _run(node, place, suite, only)
        found = compare.differences(outside, inside, place)
        reasons = Counter(compare.reason(difference, known) for difference in found)
        for reason, number in reasons.items():
            print(f"  {number} differ: {reason or 'not explained yet'}", flush=True)
        rest = [difference for difference in found if not compare.reason(difference, known)]
        stood += repeat(node, suite, place, rest)
    return stood


def repeat(
    node: Node, suite: suites.Suite, place: str, found: list[compare.Difference]
) -> list[compare.Difference]:
    """Those of the differences that show again."""
    stood: dict[str, compare.Difference] = {}
    for _ in range(REPEAT):
        left = [difference.test for difference in found if difference.test not in stood]
        if not left:
            break
        outside = drive.run(node, "outside", suite, left, hang=drive.HANG_AGAIN)
        inside = drive.run(node, place, suite, left, hang=drive.HANG_AGAIN)
        stood |= {again.test: again for again in compare.differences(outside, inside, place)}
    for difference in found:
        if difference.test not in stood:
            print(f"  passes when repeated: {difference}", flush=True)
    return list(stood.values())


def _run(node: Node, place: str, suite: suites.Suite, only: list[str]) -> drive.Report:
    began = time.monotonic()
    report = drive.run(node, place, suite, only)
    print(f"{suite.name} {place}: {_counts(report)} in {time.monotonic() - began:.0f} s", flush=True)
    return report


def _counts(report: drive.Report) -> str:
    counts = Counter(report.outcomes.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))


def main() -> int:
    """The script; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "suite", nargs="*", metavar="SUITE", help=f"of {', '.join(suites.SUITES)} (default: all)"
    )
    parser.add_argument("--mode", action="append", choices=["own", "empty"], help="only this network")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="only these tests")
    parser.add_argument("--verbose", action="store_true", help="whole tracebacks")
    parser.add_argument("--document", action="store_true", help="only write the table of docs/differences.md")
    args = parser.parse_args()
    if args.document:
        compare.PAGE.write_text(compare.document(compare.PAGE.read_text(), compare.explained()))
        return 0
    chosen = args.suite or list(suites.SUITES)
    for name in chosen:
        if name not in suites.SUITES:
            parser.error(f"no suite {name!r}")
        if why := suites.SUITES[name].missing():
            print(f"{name}: {why}", file=sys.stderr)
            return 69
    unexplained = 0
    folder = Path(tempfile.mkdtemp(prefix="axo-"))
    folder.chmod(0o755)
    try:
        with Node(folder) as node:
            for name in chosen:
                suite = suites.SUITES[name]
                for difference in check(node, suite, args.mode or ["own", "empty"], args.only or ["*"]):
                    unexplained += 1
                    print(f"  NOT EXPLAINED: {difference}", flush=True)
                    if args.verbose:
                        print(difference.text, flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"unexplained differences: {unexplained}")
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
