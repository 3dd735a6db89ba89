"""docs/security.md names a test for every line of its tables, and each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ATTACKS = ROOT / "tests/e2e/attacks"
PAGE = (ROOT / "docs/security.md").read_text()


def lines_of_attacks() -> list[str]:
    """Rows of the tables that have a column of tests."""
    tables = re.findall(r"\| attack \| what stops it \| test \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    return [line for table in tables for line in table.splitlines()]


def test_every_line_names_a_test() -> None:
    lines = lines_of_attacks()
    assert len(lines) > 30
    for line in lines:
        last = line.rstrip("| ").rpartition("|")[2].strip()
        assert last == "the same" or "`" in last, line


def test_they_exist() -> None:
    for name in re.findall(r"`(reach|sockets|names|user|flood|container|outside)\.(\w+)`", PAGE):
        source = (ATTACKS / f"test_{name[0]}.py").read_text()
        assert f"def test_{name[1]}(" in source, name


def test_no_attack_is_left_out() -> None:
    named = set(re.findall(r"`(?:reach|sockets|names|user|flood|container|outside)\.(\w+)`", PAGE))
    controls = {"own_loopback_is_loopback", "claims_may_be_free", "host_of_an_exposed_port_is_a_stranger"}
    controls |= {"hello_from_a_pid_namespace"}
    for file in ATTACKS.glob("test_*.py"):
        found = set(re.findall(r"^def test_(\w+)\(", file.read_text(), re.MULTILINE))
        assert found - named - controls == set(), file
