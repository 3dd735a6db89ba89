"""Programs print the same natively and under `ax run` (tests/semantics), blocking and not, on both paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from semantics import run

from e2e.node import Node


@pytest.fixture(scope="module")
def native(short_tmp: Path) -> Iterator[run.Machines]:
    """Two machines, and one for programs of one process, without AppSwitch."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with run.machines(short_tmp / "native") as machines:
        yield machines


@pytest.mark.parametrize("style", run.STYLES)
@pytest.mark.parametrize("module", run.MODULES)
def test_no_program_sees_a_difference(
    node: Node, native: run.Machines, short_tmp: Path, module: str, style: str
) -> None:
    expected = run.perform(native, module, style, short_tmp)
    assert sum(map(len, expected.values())) > 10
    assert "failed" not in str(expected)
    for place, flags in run.PLACES.items():
        inside = run.perform(run.Inside(node, flags), module, style, short_tmp)
        node.stop_apps()
        found = run.compare(expected, inside, place, style)
        rest = [d for d in found if not any(run.explains(row, d) for row in run.explained())]
        assert not rest, "\n".join(map(str, rest))


def test_the_page_has_the_explained_differences() -> None:
    page = run.PAGE.read_text()
    assert page == run.document(page), "python tests/semantics/run.py --document"
