"""Which cgroup a target names; state files of runtimes are other people's and decode or are refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent.containers import decode_state, find
from appswitch.errors import Conflict, InvalidInput, NotFound
from appswitch.interceptor.cgroup import of_process

ID = "0123456789abcdef" * 4


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made.pid
        made.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "cgroup"
    for name in ("system.slice", "kubepods/podx"):
        (made / name).mkdir(parents=True)
        (made / name / "cgroup.procs").touch()
    return made


def look(target: str, root: Path) -> Path:
    return find(target, root, root.parent / "run", root.parent / "docker")


def test_a_path(root: Path) -> None:
    assert look("/kubepods/podx", root) == root / "kubepods/podx"
    assert look(str(root / "kubepods/podx"), root) == root / "kubepods/podx"
    for wrong in ("/nothing", "/../../etc", "/kubepods/../../x"):
        with pytest.raises(NotFound):
            look(wrong, root)


def test_a_process(root: Path, process: int) -> None:
    assert look(str(process), root) == root / of_process(process).lstrip("/")
    with pytest.raises(NotFound):
        look("4194303", root)


@pytest.mark.parametrize(
    "name", [f"docker-{ID}.scope", f"cri-containerd-{ID}.scope", ID, f"libpod-{ID}.scope"]
)
def test_a_cgroup_with_the_id(root: Path, name: str) -> None:
    (root / "system.slice" / name / "inner").mkdir(parents=True)
    for target in (ID, ID[:12]):
        assert look(target, root) == root / "system.slice" / name
    with pytest.raises(NotFound):
        look(ID[:7], root)
    (root / f"other-{ID}").mkdir()
    with pytest.raises(Conflict, match="several cgroups"):
        look(ID, root)


def test_a_runtimes_state(root: Path, process: int) -> None:
    for path, state in (
        (f"runc/{ID}/state.json", {"id": ID, "init_process_pid": process, "config": {}}),
        ("crun/web/status", {"pid": process, "bundle": "/x"}),
    ):
        file = root.parent / "run" / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(state))
    for target in (ID, "web"):
        assert look(target, root) == root / of_process(os.getpid()).lstrip("/")


def test_dockers_name(root: Path) -> None:
    config = root.parent / "docker" / ID / "config.v2.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"ID": ID, "Name": "/web", "State": {}}))
    (config.parent.parent / "broken").mkdir()
    (root / f"system.slice/docker-{ID}.scope").mkdir()
    assert look("web", root) == root / f"system.slice/docker-{ID}.scope"


@pytest.mark.parametrize("target", ["../x", "a b", "", "x\x00"])
def test_no_word(root: Path, target: str) -> None:
    with pytest.raises(InvalidInput):
        look(target, root)


@given(st.binary() | st.builds(json.dumps, st.dictionaries(st.text(), st.integers())).map(str.encode))
def test_any_bytes_are_a_state_or_invalid(data: bytes) -> None:
    try:
        assert 0 < decode_state(data) < 1 << 22
    except InvalidInput:
        pass
