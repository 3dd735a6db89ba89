"""Runs a suite in a place of a node and reads what became of each test."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from e2e.node import Node
from e2e.sandbox import Process
from e2e.servers import PYTHON

from oracle.suites import Suite

PLACES = {
    "outside": None,
    "own": ["--new-netns=false"],
    "empty": [],
}
"""The flags of `ax run`; None: not under it."""
HANG = 60.0
"""Seconds that one test may take."""
HANG_AGAIN = 30.0
"""The same for one that differed and is repeated."""


@dataclass
class Report:
    """What became of each test: its outcome and what it said."""

    outcomes: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    running: str = ""
    done: bool = False
    began: float = 0.0

    def take(self, line: str, now: float) -> None:
        """One line of the probe."""
        said = json.loads(line)
        if "start" in said:
            self.running, self.began = said["start"], now
        elif "done" in said:
            self.done = True
        else:
            self.put(said["test"], said["outcome"], said["text"])

    def put(self, test: str, outcome: str, text: str) -> None:
        """The last word about a test."""
        self.outcomes[test], self.texts[test], self.running = outcome, text, ""


def run(node: Node, place: str, suite: Suite, only: Iterable[str] = ("*",), hang: float = HANG) -> Report:
    """Runs what of the suite is selected; a test that hangs, or kills the process, is an outcome too."""
    report = Report()
    number = 0
    skip = list(suite.skip)
    while not report.done:
        number += 1
        lines = node.base / f"report-{time.monotonic_ns():x}"
        lines.touch()
        selection = json.dumps({"only": list(only), "skip": skip, "resources": suite.resources})
        process = _start(node, place, [PYTHON, *suite.probe(node.base), str(lines), selection])
        report.began = time.monotonic()
        _follow(report, process, lines, hang)
        if not report.done:
            if not report.running:
                raise AssertionError(f"{suite.name} {place}: {process.output()[-2000:]}")
            outcome = "hang" if process.popen.returncode == -signal.SIGKILL else "crash"
            report.put(report.running, outcome, process.output()[-2000:])
        skip = [*suite.skip, *report.outcomes]
    return report


def _start(node: Node, place: str, argv: list[str]) -> Process:
    flags = PLACES[place]
    if flags is None:
        return node.host_start(*argv)
    return node.start("--ip", node.fresh_ip(), *flags, *argv)


def _follow(report: Report, process: Process, lines: Path, hang: float) -> None:
    """Reads lines until the probe ends or a test takes too long."""
    with lines.open() as reader:
        while True:
            ended = process.popen.poll() is not None
            while line := reader.readline():
                report.take(line, time.monotonic())
            if ended or report.done:
                break
            if time.monotonic() - report.began > hang:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
    process.popen.wait(10)
