"""The run directory's lock and its name for the kernel's pins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appswitch.agent.run_dir import RunDir
from appswitch.errors import Conflict, Unsupported


def test_one_daemon_each(tmp_path: Path) -> None:
    first = RunDir(tmp_path / "a" / "run")
    other = RunDir(tmp_path / "b")
    with pytest.raises(Conflict, match=rf"another daemon \(pid {os.getpid()}\) runs on .*: stop it, or give"):
        RunDir(tmp_path / "a" / "run")
    first.close()
    RunDir(tmp_path / "a" / "run").close()
    other.close()


def test_pins_have_names_of_their_own(tmp_path: Path) -> None:
    found = []
    for name in ("x.y", "x/y", "x_y"):
        run_dir = RunDir(tmp_path / name)
        found.append(run_dir.pin_dir.name)
        run_dir.close()
    assert len(set(found)) == 3 and not any("." in name for name in found)  # bpffs admits no dot
    (tmp_path / "link").symlink_to(tmp_path / "x_y")
    linked = RunDir(tmp_path / "link")
    assert linked.tag.split("-")[-1] == found[2].split("-")[-1], "the same place by another name"
    linked.close()


def test_no_such_place() -> None:
    with pytest.raises(Unsupported, match="run directory /dev/null/x: Not a directory"):
        RunDir(Path("/dev/null/x"))


def test_a_directory_that_others_may_write_to(tmp_path: Path) -> None:
    for mode in (0o777, 0o1777, 0o775):
        (tmp_path / "open").mkdir(exist_ok=True)
        (tmp_path / "open").chmod(mode)
        with pytest.raises(Unsupported, match=f"others than root may write to or replace .*mode {mode:o}"):
            RunDir(tmp_path / "open")
    assert list((tmp_path / "open").iterdir()) == []


def test_a_link_in_the_place_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(Unsupported, match="symbolic links"):
        RunDir(tmp_path)
    assert (tmp_path / "precious").read_text() == "text"
