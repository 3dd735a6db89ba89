"""Upstream's source of a Debian package, fetched by apt without a change to this machine's settings."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

CACHE = Path(__file__).with_name("_cache")
_SOURCES = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))


class Missing(Exception):
    """The source cannot be had here; the text says why."""


def fetch(package: str, members: str) -> Path:
    """The folder with those files of the package's source whose path matches `members`.  Raises Missing."""
    folder = CACHE / package
    if not (folder / ".done").exists():
        try:
            _unpack(_download(package), folder, re.compile(members))
        except (OSError, subprocess.SubprocessError) as error:
            raise Missing(f"apt-get source {package}: {error} {getattr(error, 'stderr', '')}") from error
        (folder / ".done").touch()
    return folder


def _download(package: str) -> Path:
    CACHE.mkdir(exist_ok=True)
    lists, sources = CACHE / "lists", CACHE / "apt.sources"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    known = [path.read_text() for path in _SOURCES if path.suffix in (".list", ".sources") and path.exists()]
    one_line = re.findall(r"^deb (.*)$", "\n".join(known), re.MULTILINE)
    stanzas = [re.sub(r"(?m)^Types: .*$", "Types: deb-src", text) for text in known if "Types:" in text]
    sources.write_text("\n\n".join(stanzas))
    sources.with_suffix(".list").write_text("".join(f"deb-src {line}\n" for line in one_line))
    options = [f"Dir::State::Lists={lists}", f"Dir::Etc::SourceParts={CACHE}", "Dir::Etc::SourceList=-"]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    for arguments in (["update"], ["source", "--tar-only", "--download-only", package]):
        subprocess.run([*apt, *arguments], cwd=CACHE, check=True, capture_output=True, text=True, timeout=300)
    return next(CACHE.glob(f"{package}_*.orig.tar.*"))


def _unpack(tarball: Path, folder: Path, members: re.Pattern[str]) -> None:
    with tarfile.open(tarball) as archive:
        for member in archive:
            _, _, inside = member.name.partition("/")
            if inside and members.match(inside):
                member.name = inside
                archive.extract(member, folder, filter="data")
    for path in CACHE.glob(tarball.name.partition(".orig")[0] + "*"):
        path.unlink()
