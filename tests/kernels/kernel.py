"""A kernel and those of its modules that the tests need, out of a Debian package.

Nothing is installed: the package is downloaded by `apt-get download` and a few files are taken out of it.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"
"""Debian's own kernel of its own release; it differs from linux-image-amd64 in drivers alone."""
MODULES = ("bridge", "dummy", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "veth")
"""What our tests and `ss` use.  There is no modprobe in the machine: they are loaded before the tests."""
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class Missing(Exception):
    """No such kernel can be had here; the text says why."""


@dataclass(frozen=True)
class Kernel:
    """What a machine boots."""

    image: Path
    modules: tuple[Path, ...]
    """In the order of loading."""


def from_files(image: Path, directory: Path) -> Kernel:
    """A kernel image, and the folder that holds its modules somewhere below it."""
    return Kernel(image, _order({_name(path): path for path in directory.rglob("*.ko*")}))


def from_package(package: str, cache: Path) -> Kernel:
    """Downloads the package (or what a meta-package stands for) once.  Raises Missing."""
    try:
        package = _real(package)
        folder = cache / package
        if not (folder / "done").exists():
            _unpack(_download(package, cache), folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"{package}: {error} {getattr(error, 'stderr', '')}") from error
    return from_files(next(folder.glob("vmlinuz*")), folder)


def _real(package: str) -> str:
    """linux-image-cloud-amd64 → linux-image-6.1.0-56-cloud-amd64"""
    out = subprocess.run(["apt-cache", "depends", "--important", package], **_TEXT).stdout
    found = re.findall(r"Depends: (linux-image-\S+)", out)
    return found[0] if found else package


def _download(package: str, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-q", package], cwd=cache, **_TEXT)
    return max(cache.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)


_TEXT = {"check": True, "capture_output": True, "text": True, "timeout": 240}


def _unpack(deb: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as packed,
        tarfile.open(fileobj=packed.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = Path(member.name)
            # the modules that the wanted ones depend on are in the same places
            wanted = path.name.startswith("vmlinuz") or path.parts[4:5] == ("net",) or _name(path) in MODULES
            if member.isfile() and wanted:
                data = archive.extractfile(member)
                assert data is not None
                (folder / path.name).write_bytes(data.read())
    deb.unlink()
    (folder / "done").touch()


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _order(known: dict[str, Path]) -> tuple[Path, ...]:
    """The wanted modules and all that they depend on, which come first.  What is built in is not there."""
    found: dict[str, Path] = {}

    def visit(names: Iterable[str]) -> None:
        for name in names:
            if name in known and name not in found:
                depends = _DEPENDS.search(read(known[name]))
                assert depends, f"{known[name]} is no kernel module"
                visit(depends[1].decode().replace("-", "_").split(","))
                found[name] = known[name]

    visit(MODULES)
    return tuple(found.values())


def read(module: Path) -> bytes:
    """A module as the kernel takes it."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data
