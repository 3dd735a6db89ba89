"""The short form of the chaos run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.chaos import trial


@pytest.fixture
def folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    made = Path(tempfile.mkdtemp(prefix="axc-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.timeout(240)
def test_no_call_fails(folder: Path) -> None:
    """Whatever is killed, stopped or exhausted; afterwards nothing is left."""
    outcomes, leaks = trial(folder, 15, seed=4, istio=False)
    for outcome in outcomes:
        assert outcome.calls > 10 and not outcome.failed, f"{outcome.line()}\n" + "\n".join(outcome.failed)
    assert not leaks, leaks
