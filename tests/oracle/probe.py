"""Runs one of CPython's test suites and writes a line of JSON before and after each test.

It imports nothing of ours: it runs as an unmodified program, under `ax run` or not.
Usage: probe.py MODULE REPORT SELECTION; a selection is JSON: {"only": [patterns], "skip": [patterns],
"resources": [as of `python -m test -u`]}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import unittest
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, TextIO


class Recorder(unittest.TestResult):
    """One line per test, at once: whoever reads them knows which test hangs."""

    def __init__(self, report: TextIO) -> None:
        super().__init__()
        self._report = report
        self._outcome = ("ok", "")

    def _say(self, **line: str) -> None:
        print(json.dumps(line), file=self._report, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome = ("ok", "")
        self._say(start=test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._say(test=test.id(), outcome=self._outcome[0], text=self._outcome[1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._outcome = ("skip", reason)
        if not isinstance(test, unittest.TestCase) or "ClassCleanup" in test.id():
            self._say(test=test.id(), outcome="skip", text=reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._outcome = ("ok", "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._outcome = ("fail", "unexpected success")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._fail("fail", test, err)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._fail("error", test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._fail("fail", test, err)

    def _fail(self, kind: str, test: unittest.TestCase, err: Any) -> None:
        text = self._exc_info_to_string(err, test)  # type: ignore[attr-defined]
        self._outcome = (kind, text)
        if not hasattr(test, "_testMethodName"):  # setUpClass or setUpModule: no stopTest follows
            self._say(test=test.id(), outcome=kind, text=text)


def tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Every test of a suite, in order."""
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests(part)
        else:
            yield part


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a test's full name is one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def main(module: str, report: str, selection: str) -> None:
    """Runs what of the module is selected."""
    chosen = json.loads(selection)
    support = importlib.import_module("test.support")
    vars(support)["use_resources"] = chosen["resources"]
    with tempfile.TemporaryDirectory() as folder, open(report, "a") as out:
        os.chdir(folder)
        suite = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(module))
        wanted = [
            test
            for test in tests(suite)
            if matches(test.id(), chosen["only"]) and not matches(test.id(), chosen["skip"])
        ]
        # one suite, so that unittest calls setUpModule and setUpClass where they belong
        unittest.TestSuite(wanted).run(Recorder(out))
        print(json.dumps({"done": module}), file=out, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads that a test left behind do not count
