"""Tests that need root: they make namespaces, cgroups and BPF objects of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.sandbox import Sandbox
from kernel.driver import Driver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is in this folder where it cannot run."""
    if os.geteuid() == 0:
        return
    for item in items:
        if "tests/kernel" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason="needs root (namespaces)"))


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """The programs, in a sandbox of their own."""
    sandbox = Sandbox(tmp_path)
    try:
        made = Driver(sandbox)
        try:
            yield made
        finally:
            made.close()
    finally:
        sandbox.close()
