"""Finds what differs from outside, and what of it is explained."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from oracle.drive import Report

DATA = Path(__file__).with_name("explained.toml")
PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
BEGIN, END = "<!-- oracle -->\n", "<!-- /oracle -->\n"
"""Between these lines of the page is the table that is made from the data."""


@dataclass(frozen=True)
class Explained:
    """Tests that may differ, and why."""

    test: str
    """Pattern of full names."""
    places: tuple[str, ...]
    what: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """A test that passes outside and does not inside."""

    test: str
    place: str
    outcome: str
    text: str

    def __str__(self) -> str:
        words = self.text.strip().splitlines() or ["-"]
        return f"{self.place:6} {self.outcome:5} {self.test}: {words[-1]}"


def explained() -> list[Explained]:
    """The data file, decoded."""
    rows = tomllib.loads(DATA.read_text())["explained"]
    return [Explained(row["test"], tuple(row["places"]), row["what"], row["reason"]) for row in rows]


def differences(outside: Report, inside: Report, place: str) -> list[Difference]:
    """Every test that passes outside and not inside, or is not even found there."""
    found = []
    for test, outcome in outside.outcomes.items():
        if outcome != "ok":
            continue
        here = inside.outcomes.get(test, "gone")
        if here != "ok":
            found.append(Difference(test, place, here, inside.texts.get(test, "")))
    return found


def reason(difference: Difference, known: Iterable[Explained]) -> str:
    """Why it may differ, or nothing."""
    for row in known:
        if difference.place in row.places and fnmatchcase(difference.test, row.test):
            return row.reason
    return ""


def document(page: str, known: Iterable[Explained]) -> str:
    """The page with its table as the data says."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    networks = {"own": "the node's own", "empty": "empty namespace"}
    rows = ["| tests | what | network | why |", "|---|---|---|---|"]
    for row in known:
        where = "both" if len(row.places) == len(networks) else networks[row.places[0]]
        rows.append(f"| `{row.test.removeprefix('test.')}` | {row.what} | {where} | {row.reason} |")
    return before + BEGIN + "\n".join(rows) + "\n" + END + after
