"""The short form of the oracle: programs' own tests of sockets under `ax run` against outside."""

from __future__ import annotations

import pytest
from oracle import compare, drive, run, suites

from e2e.node import Node

SHORT = ["test_socket", "test_socketserver", "libuv", "node"]


@pytest.mark.timeout(600)  # libuv is compiled once
@pytest.mark.parametrize("name", SHORT)
def test_programs_own_tests_pass_inside(node: Node, name: str) -> None:
    suite = suites.SUITES[name]
    if why := suite.missing():
        pytest.skip(why)
    outside = drive.run(node, "outside", suite, suite.short)
    passing = [test for test, outcome in outside.outcomes.items() if outcome == "ok"]
    assert len(passing) > 20
    known = compare.explained()
    for place in ("own", "empty"):
        inside = drive.run(node, place, suite, suite.short)
        found = compare.differences(outside, inside, place)
        rest = [difference for difference in found if not compare.reason(difference, known)]
        stood = run.repeat(node, suite, place, rest)
        assert not stood, "\n".join(f"{difference}\n{difference.text}" for difference in stood)


def test_the_page_has_the_explained_differences() -> None:
    page = compare.PAGE.read_text()
    assert page == compare.document(page, compare.explained()), "python tests/oracle/run.py --document"
