"""Runs the tests of a suite whose tests are programs, and writes a line of JSON before and after each.

As probe.py it imports nothing of ours and runs under `ax run` or not.
Usage: processes.py PLAN REPORT SELECTION; the plan is a file of JSON: {"tests": {name: argv}, "cwd": folder,
"seconds": that a test may take, "skip": text that a test prints when it skips itself}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fnmatch import fnmatchcase
from typing import Any


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a test's name is one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def run(argv: list[str], plan: dict[str, Any]) -> tuple[str, str]:
    """The outcome of one test, and what it said."""
    with subprocess.Popen(
        argv,
        cwd=plan["cwd"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as popen:
        try:
            said = popen.communicate(timeout=plan["seconds"])[0]
            outcome = "fail" if popen.returncode else "ok"
        except subprocess.TimeoutExpired:
            outcome, said = "hang", b""
        try:
            os.killpg(popen.pid, signal.SIGKILL)  # a test's own children do not outlive it
        except ProcessLookupError:
            pass
    text = said.decode(errors="replace")[-4000:]
    return ("skip" if outcome == "ok" and plan["skip"] in text else outcome), text


def main(plan_file: str, report: str, selection: str) -> None:
    """Runs what of the plan is selected."""
    with open(plan_file) as file:
        plan = json.load(file)
    chosen = json.loads(selection)
    with open(report, "a") as out:

        def say(**line: str) -> None:
            print(json.dumps(line), file=out, flush=True)

        for name, argv in plan["tests"].items():
            if matches(name, chosen["only"]) and not matches(name, chosen["skip"]):
                say(start=name)
                outcome, text = run(argv, plan)
                say(test=name, outcome=outcome, text=text)
        say(done=plan_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
