"""Other people's programs on a cgroup that becomes an app: they stay, and run beside ours."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kernel.driver import Driver

from appswitch.interceptor import libbpf
from appswitch.interceptor.kernel import BPFFS, Kernel

CONNECT4 = 10
SOURCE = """
__attribute__((section("cgroup/connect4"), used)) int other(void *context) { return 1; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A descriptor of somebody's program that lets every connect() pass."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "other.bpf.c").write_text(SOURCE)
    compile_it = ["-m", "ziglang", "cc", "-target", "bpfel-freestanding", "-mcpu=v3", "-O2", "-g", "-c"]
    argv = [sys.executable, *compile_it, "-fno-asynchronous-unwind-tables", "other.bpf.c", "-o", "other.o"]
    subprocess.run(argv, cwd=folder, check=True, timeout=50)
    made = libbpf.Object(folder / "other.o", {})
    yield made.program_fd("other")
    made.close()


def put(program: int, cgroup: Path, flags: int) -> None:
    descriptor = os.open(cgroup, os.O_RDONLY)
    options = (ctypes.c_uint64 * 2)(16, flags)
    assert libbpf.library().bpf_prog_attach_opts(program, descriptor, CONNECT4, ctypes.byref(options)) == 0
    os.close(descriptor)


def there(cgroup: Path) -> list[str]:
    descriptor = os.open(cgroup, os.O_RDONLY)
    names = [name for name, _ in libbpf.attached(descriptor, CONNECT4)]
    os.close(descriptor)
    return sorted(names)


def test_beside_another(driver: Driver, other: int) -> None:
    pod = driver.pod("10.0.2.21", attach=False)
    put(other, pod.cgroup, libbpf.F_ALLOW_MULTI)
    driver.attach(pod, "1.1.1.1")
    assert there(pod.cgroup) == ["ax_connect4", "other"]
    driver.kernel.attach(pod.cgroup, 1, 0, IPv4Address("1.1.1.1"), 4)  # as the next daemon does
    assert there(pod.cgroup) == ["ax_connect4", "other"]
    driver.kernel.detach(pod.cgroup)
    assert there(pod.cgroup) == ["other"]


@pytest.mark.parametrize("flags", [0, 1])
def test_one_that_wants_to_be_alone(driver: Driver, other: int, flags: int) -> None:
    pod = driver.pod("10.0.2.21", attach=False)
    put(other, pod.cgroup, flags)
    with pytest.raises(PermissionError, match=r"another program \(other\) is attached and admits none"):
        driver.kernel.attach(pod.cgroup, 1, 0, IPv4Address("1.1.1.1"), 4)
    driver.kernel.detach(pod.cgroup)
    assert there(pod.cgroup) == ["other"]


def test_another_daemons_app(driver: Driver) -> None:
    pod = driver.pod("10.0.2.21")
    pins = BPFFS / f"{driver.pins.name}-2"
    second = Kernel.open(pins, clean=True)
    try:
        with pytest.raises(OSError, match="an app of another AppSwitch daemon"):
            second.attach(pod.cgroup, 1, 0, IPv4Address("1.1.1.1"), 4)
        second.detach(pod.cgroup)
        assert there(pod.cgroup) == ["ax_connect4"]
        second.detach(pod.cgroup, anyones=True)
        assert there(pod.cgroup) == []
    finally:
        second.close()
        second.remove()
