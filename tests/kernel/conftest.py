"""Tests that need root: they make namespaces, cgroups and BPF objects of their own."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is in this folder where it cannot run."""
    if os.geteuid() == 0:
        return
    for item in items:
        if "tests/kernel" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason="needs root (namespaces)"))
