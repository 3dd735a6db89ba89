"""The short form of the fuzzers: every decoder takes an input or raises what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import launcher
from fuzz.decoders import DECODERS
from fuzz.run import fuzz

COUNT = 3000


@pytest.mark.parametrize("name", DECODERS)
def test_only_the_typed_error(name: str) -> None:
    tally = fuzz(DECODERS[name], COUNT, seed=5)
    assert not tally.faults, tally.faults
    assert tally.taken > COUNT // 100, "the seeds are no longer what the decoder takes"
    assert tally.refused > COUNT // 100


def test_the_launchers_parsers(tmp_path: Path) -> None:
    program, _ = launcher.build(tmp_path)
    done = launcher.run(program, 20_000, seed=5, timeout=50)
    assert done.returncode == 0, done.stderr[-4000:]
