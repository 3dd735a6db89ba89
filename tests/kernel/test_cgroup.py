"""Where an app's cgroup is made: below its caller's limits, always."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.interceptor import cgroup


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cgroup in which the caller is, with a name much like an app's."""
    if os.geteuid() != 0:
        pytest.skip("needs root: cgroups")
    path = cgroup.cgroup_root() / f"ax-limited-{os.getpid()}.slice"
    path.mkdir()
    monkeypatch.setattr(cgroup, "of_process", lambda _: f"/{path.name}")
    yield path
    path.rmdir()


def test_below_the_caller(limited: Path) -> None:
    made = cgroup.create(1, "f0000001")
    assert made == limited / "ax-f0000001"
    assert cgroup.remove(made) and not cgroup.populated(made)


def test_a_caller_that_may_have_no_children_goes_nowhere_else(limited: Path) -> None:
    (limited / "cgroup.max.descendants").write_text("0")
    with pytest.raises(OSError) as raised:
        cgroup.create(1, "f0000001")
    assert raised.value.errno == errno.EAGAIN
    assert not list(cgroup.cgroup_root().glob("**/ax-f0000001"))
