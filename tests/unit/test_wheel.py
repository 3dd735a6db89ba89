"""What an installation gets: built as a user's pip does it, source tree → sdist → wheel → `ax`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build"
)

pytestmark = pytest.mark.timeout(600)  # the first build on a machine compiles musl


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def files_of_package(tree: Path, *patterns: str) -> set[str]:
    """Paths inside the wheel of the source files of `tree` that match."""
    found: set[str] = set()
    for folder, _, names in os.walk(tree / "src" / "appswitch", followlinks=True):
        inside = Path(folder).relative_to(tree / "src")
        found |= {
            str(inside / name) for name in names if any(Path(name).match(pattern) for pattern in patterns)
        }
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, built from a copy of the tree: a build leaves files behind."""
    place = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, place / "tree", symlinks=True, ignore=NOT_SOURCES)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    name = run(sys.executable, "-c", build, cwd=place / "tree").splitlines()[-1]
    with tarfile.open(place / name) as archive:
        archive.extractall(place, filter="data")
    return place / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel, built from the source distribution alone."""
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    return sdist.parent / run(sys.executable, "-c", build, cwd=sdist).splitlines()[-1]


def test_sdist_has_all_sources(sdist: Path) -> None:
    wanted = files_of_package(sdist.parent / "tree", "*.py", "*.c", "*.h")
    present = {str(path.relative_to(sdist / "src")) for path in (sdist / "src").rglob("*")}
    assert wanted - present == set()
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= {path.name for path in sdist.iterdir()}


def test_wheel_has_modules_objects_and_launchers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        launcher = archive.getinfo(f"{wheel.name.split('-py3')[0]}.data/scripts/ax")
        magic = {name: archive.read(name)[:20] for name in names if "_built/" in name}
    modules = {name for name in names if name.endswith(".py")}
    assert modules == files_of_package(wheel.parent / "tree", "*.py")
    built = "appswitch/interceptor/_built/"
    programs = files_of_package(wheel.parent / "tree", "*.bpf.c")
    objects = {path.removesuffix(".c").replace("/bpf/", "/_built/") + ".o" for path in programs}
    assert objects
    assert set(magic) == objects | {f"{built}ax-x86_64", f"{built}ax-aarch64"}
    machines = {name: int.from_bytes(start[18:20], "little") for name, start in magic.items()}
    assert all(start.startswith(b"\x7fELF") for start in magic.values())
    assert {machines[name] for name in objects} == {247}  # EM_BPF
    assert (machines[f"{built}ax-x86_64"], machines[f"{built}ax-aarch64"]) == (62, 183)
    assert launcher.external_attr >> 16 & 0o111 == 0o111


def test_wheel_is_tagged_for_its_platform(wheel: Path) -> None:
    machine = os.uname().machine
    assert wheel.name.endswith(f"-py3-none-manylinux2014_{machine}.musllinux_1_1_{machine}.whl")


def test_installed_command_runs(wheel: Path, tmp_path: Path) -> None:
    """In a new environment; dependencies are lent by this one, so that nothing is downloaded."""
    venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
    python, ax = tmp_path / "venv/bin/python", tmp_path / "venv/bin/ax"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    home = run(
        python,
        "-P",
        "-c",
        "import appswitch.interceptor; print(appswitch.interceptor.__file__)",
        cwd=tmp_path,
    )
    assert Path(home.strip()).is_relative_to(tmp_path)
    for command in (["run", "true"], ["get", "apps"]):
        result = subprocess.run(
            [ax, *command],
            env={**os.environ, "AX_RUN_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 69
        assert f"no daemon at {tmp_path}" in result.stderr
