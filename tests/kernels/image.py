"""An initramfs with this Python, this source tree and some programs, at the paths they have here.

The format is cpio's "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in Linux), written
by hand: a header of hexadecimal fields, the name, the data, each padded to four bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from kernels import kernel

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (
    *(
        "busybox",
        "sh",
        "curl",
        "ip",
        "nginx",
        "nsenter",
        "unshare",
        "mount",
        "umount",
        "getent",
        "dig",
        "cat",
    ),
    *("setpriv", "sleep", "true", "false", "env", "id", "ss"),
)
"""Those that are not here are left out: a test that wants one fails or is skipped."""
FILES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/protocols", "/etc/services")
DIRECTORIES = (
    "/busybox",
    "/dev",
    "/etc",
    "/modules",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/var",
    "/var/lib",
    "/var/log",
)
EMPTY = ("/var/lib/nginx", "/var/log/nginx")
_LEFT_OUT = re.compile(
    r"/(\.git|node_modules|test|tests|idlelib|ensurepip|lib2to3|tkinter|turtledemo|config-3\S*|"
    r"ziglang|pip|mypy|mypyc|\w+__mypyc\S*|grpc_tools|hypothesis|_hypothesis\S*|setuptools|"
    r"(ziglang|pip|mypy|hypothesis|setuptools|grpcio_tools)-\S*|libpython\S*\.a|\S+\.opt-\d\.pyc)(/|$)"
)
"""What no test in the machine imports, big or (a plug-in of pytest's) broken by halves."""
_IMPORTED = """
import sys
import appswitch.agent.cli_daemon, appswitch.agent.cli_get, appswitch.agent.daemon
import appswitch.interceptor.inject
print(*{name.partition(".")[0] for name in sys.modules})
"""

_INIT = """#!/usr/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox PYTHONSAFEPATH=1 HOME=/root
bb=/usr/bin/busybox; $bb --install -s /busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
$bb mkdir -p /dev/shm /dev/pts; $bb mount -t tmpfs tmp /dev/shm; $bb mount -t devpts pts /dev/pts
$bb mount -t cgroup2 none /sys/fs/cgroup; $bb mount -t bpf bpf /sys/fs/bpf
$bb ln -s /proc/self/fd /dev/fd
for module in $($bb cat /modules.order); do $bb insmod /modules/$module; done
$bb ip link set lo up
$bb stty -onlcr
/bin/sh /command </dev/null 2>&1
echo "exit-status: $?"
$bb reboot -f
"""


class Archive:
    """The file, and what of it is written already."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._names: set[str] = set()
        self._folders: dict[Path, Path] = {}

    def entry(self, path: str, mode: int, data: bytes = b"") -> bool:
        """Whether it was not there yet.  The folders above must be."""
        if path in self._names or path == "/":
            return False
        self._names.add(path)
        name = path.lstrip("/").encode() + b"\0"
        fields = (len(self._names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        self._file.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))
        return True

    def add(self, path: Path) -> None:
        """A file, folder (without what is in it) or link of this machine, and what the link leads to."""
        real = self._folder(path.parent) / path.name
        there = real.lstat()
        if stat.S_ISLNK(there.st_mode):
            leads = os.readlink(real)
            if self.entry(str(real), stat.S_IFLNK | 0o777, os.fsencode(leads)) and real.exists():
                self.add(real.parent / leads)
        elif stat.S_ISDIR(there.st_mode):
            self.entry(str(real), stat.S_IFDIR | stat.S_IMODE(there.st_mode))
        elif stat.S_ISREG(there.st_mode):
            data = real.read_bytes()
            if real.suffix != ".pyc" or (data := _timeless(real, data)):
                self.entry(str(real), stat.S_IFREG | stat.S_IMODE(there.st_mode), data)

    def _folder(self, folder: Path) -> Path:
        """Where a folder really is; every link and folder on the way there is in the archive then."""
        if folder not in self._folders:
            if folder == Path("/"):
                real = folder
            elif folder.name == "..":
                real = self._folder(folder.parent).parent
            else:
                self.add(folder)
                real = folder.resolve()
                self.add(real)
            self._folders[folder] = real
        return self._folders[folder]

    def end(self) -> None:
        """The last record."""
        self.entry("/TRAILER!!!", 0)


def _timeless(path: Path, data: bytes) -> bytes:
    """Compiled Python that is not compared with its source (PEP 552); nothing where it is out of date.

    An initramfs has no times of change, and compiling all modules anew is most of an emulated start.
    """
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    try:
        there = source.stat()
    except OSError:
        return b""
    flags, changed, size = struct.unpack_from("<III", data, 4)
    if flags == 0 and (changed, size) != (int(there.st_mtime) & 0xFFFFFFFF, there.st_size):
        return b""
    return data[:4] + struct.pack("<I", 1) + data[8:]


def make(target: Path, modules: Iterable[Path], command: str, *, lean: bool) -> None:
    """Writes the initramfs; `command` is a line for its shell.  Lean: no packages of the tests'."""
    with target.open("wb") as file:
        archive = Archive(file)
        archive.add(Path("/bin"))  # a link to usr/bin where Debian has merged them
        for name in (*DIRECTORIES, *EMPTY):
            archive.entry(name, stat.S_IFDIR | (0o1777 if name == "/tmp" else 0o755))
        archive.entry("/dev/console", stat.S_IFCHR | 0o600)  # made anew by devtmpfs; init needs one before
        for text, name, mode in (
            (_INIT, "/init", 0o755),
            (command + "\n", "/command", 0o644),
            ("# no server\n", "/etc/resolv.conf", 0o644),
        ):
            archive.entry(name, stat.S_IFREG | mode, text.encode())
        _modules(archive, modules)
        for folder in ("/usr/local", "/usr/local/bin"):
            archive.entry(folder, stat.S_IFDIR | 0o755)
        python = os.fsencode(Path(sys.executable).resolve())
        archive.entry("/usr/local/bin/python3", stat.S_IFLNK | 0o777, python)
        for path in _files(lean):
            archive.add(path)
        archive.end()


def _modules(archive: Archive, modules: Iterable[Path]) -> None:
    names = []
    for module in modules:
        names.append(module.name.split(".ko")[0])
        archive.entry(f"/modules/{names[-1]}", stat.S_IFREG | 0o644, kernel.read(module))
    archive.entry("/modules.order", stat.S_IFREG | 0o644, "\n".join(names).encode())


def _files(lean: bool) -> Iterator[Path]:
    """Everything of this machine's that goes along, libraries included."""
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name, path=_PATH))]
    trees = list(_trees(_imported() if lean else None))
    loaded = [*programs, Path(sys.executable).resolve(), *(path for path in trees if ".so" in path.name)]
    yield from (Path(name) for name in FILES if Path(name).exists())
    yield from programs
    yield from trees
    yield from _libraries(loaded)


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _imported() -> set[str]:
    """Top-level packages that the daemon and its processes import."""
    argv = [sys.executable, "-P", "-c", _IMPORTED]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split())


def _trees(packages: set[str] | None) -> Iterator[Path]:
    """The interpreter, the virtual environment (or some packages of it) and the source tree."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield Path(sys.executable)
    yield Path(sys.prefix) / "pyvenv.cfg"
    yield Path(sys.prefix) / "bin" / "ax"
    yield from _below(Path(sys.base_prefix) / "lib" / version, "/site-packages")
    for name in {*site.getsitepackages(), *(path for path in sys.path if path.endswith("site-packages"))}:
        for path in Path(name).iterdir():
            if packages is None or path.suffix == ".pth" or path.name.partition(".")[0] in packages:
                yield from _below(path) if path.is_dir() else [path]
    for part in ("agent", "gateways", "interceptor", "src", "tests", "xds", "istio-samples"):
        yield from _below(ROOT / part, own=True)
    yield ROOT / "pyproject.toml"


def _below(folder: Path, but: str = "\0", *, own: bool = False) -> Iterator[Path]:
    for directory, names, files in os.walk(folder):
        inside = directory.removeprefix(str(folder.parent))
        if but in inside or (not own and _LEFT_OUT.search(inside)):
            names.clear()
            continue
        names[:] = [name for name in names if name not in ("_cache", "zig-cache")]
        links = [name for name in names if Path(directory, name).is_symlink()]
        yield from (
            Path(directory, name) for name in [*files, *links] if own or not _LEFT_OUT.search("/" + name)
        )


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """What the loader will want, and libbpf, which we load by its name."""
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=120).stdout
    found = {Path(name) for name in re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE)}
    for pattern in ("libbpf.so.1*", "libelf*.so*", "libz.so.1*", "libnss_*.so*", "libgcc_s.so.1"):
        found |= set(Path("/usr/lib").glob(f"*-linux-gnu/{pattern}"))
    more = subprocess.run(["ldd", *map(str, found)], capture_output=True, text=True, timeout=60).stdout
    return found | {Path(name) for name in re.findall(r"=> (/\S+) \(0x", more)}
