"""Options of single tests (pytest takes them from this folder only)."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """For tests/kernel/test_differential.py and test_ports.py."""
    parser.addoption("--cases", type=int, default=6, help="differential test: number of random meshes")
    parser.addoption("--seed", type=int, default=1, help="differential test: the first mesh's seed")
    parser.addoption("--cycles", type=int, default=1000, help="test_ports.py: sockets opened and closed")
