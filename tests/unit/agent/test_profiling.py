"""Profiles: begun, kept, written; and what is said where they cannot be."""

from __future__ import annotations

import asyncio
import json
import pstats
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appswitch.agent import profiling
from appswitch.agent.profiling import CpuProfile, NoProfile, begin, beside, kept, profiled
from appswitch.errors import Unsupported, UsageError


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))


def frames(path: Path) -> set[str]:
    """Names in a file of speedscope's."""
    document = json.loads(path.read_text())
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    return {frame["name"] for frame in document["shared"]["frames"]}


def test_a_cpu_profile_is_kept_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    profile = CpuProfile(path)
    burn(0.05)
    profile.keep()
    assert "burn" in frames(path) and "later" not in frames(path)

    def later() -> None:
        burn(0.05)

    time.sleep(0.1)  # waiting is no CPU time
    later()
    profile.close()
    assert {"burn", "later"} <= frames(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["html", "pstats"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cpu.{suffix}"
    with profiled(path, None):
        burn(0.05)
    if suffix == "html":
        assert path.read_text().lower().startswith("<!doctype html>") and "burn" in path.read_text()
    else:
        assert any(name == "burn" for _, _, name in pstats.Stats(str(path)).stats)  # type: ignore[attr-defined]


def test_it_is_kept_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "KEEP", 0.01)
    path = tmp_path / "cpu.json"

    async def work() -> None:
        end = time.monotonic() + 10
        while "burn" not in path.read_text():
            burn(0.01)
            await asyncio.sleep(0.02)
            assert time.monotonic() < end

    with profiled(path, None) as profile:
        asyncio.run(kept(profile, work()))


def test_memory(tmp_path: Path) -> None:
    """In a process of its own: memray hooks the allocator."""
    path = tmp_path / "mem.bin"
    code = (
        "import pathlib, sys; from appswitch.agent.profiling import profiled\n"
        "with profiled(None, pathlib.Path(sys.argv[1])): kept = [bytearray(1 << 20) for _ in range(5)]\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(path)], check=True, timeout=30)
    import memray

    with memray.FileReader(path) as reader:
        assert reader.metadata.peak_memory > 5 << 20


def test_neither() -> None:
    assert isinstance(begin(None, None), NoProfile)
    with profiled(None, None) as profile:
        profile.keep()


def test_both_is_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        begin(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("module", "flag"), [("pyinstrument", "--cpu-profile"), ("memray", "--mem-profile")])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, flag: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    files = (tmp_path / "a", None) if module == "pyinstrument" else (None, tmp_path / "a")
    with pytest.raises(Unsupported, match=rf"{flag} needs the profilers.*pip install 'appswitch\[profile\]'"):
        begin(*files)
    assert not (tmp_path / "a").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "no" / "cpu.json"
    with pytest.raises(UsageError, match=rf"--cpu-profile {file}: No such file.*that can be written"):
        begin(file, None)
    with pytest.raises(UsageError, match=rf"--mem-profile {file}: No such file"):
        begin(None, file)


def test_beside() -> None:
    assert beside(Path("/tmp/cpu.json"), "istio") == Path("/tmp/cpu.istio.json")
    assert beside(Path("/tmp/cpu"), "istio") == Path("/tmp/cpu.istio")
    assert beside(None, "istio") is None
