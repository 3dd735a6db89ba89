"""The app's address on lo of a namespace that is not ours."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from appswitch.interceptor import network

IP = IPv4Address("1.1.1.1")


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A process in a network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    command = ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def addresses(pid: int) -> list[str]:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-4", "-br", "address", "show", "lo"]
    _, state, *found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert state != "DOWN"
    return found


def test_whose_it_is(elsewhere: int) -> None:
    assert network.is_ours(os.getpid()) and not network.is_ours(elsewhere)
    with pytest.raises(FileNotFoundError):
        network.is_ours(1 << 22)


def test_shown_and_hidden(elsewhere: int) -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    pidfd = os.pidfd_open(elsewhere)
    opened = len(os.listdir("/proc/self/fd"))
    namespace = network.show_address(pidfd, IP)
    os.close(network.show_address(pidfd, IP))  # another app of that address
    assert addresses(elsewhere) == ["127.0.0.1/8", "1.1.1.1/32"]
    network.hide_address(namespace, IP)
    assert addresses(elsewhere) == ["127.0.0.1/8"]
    with pytest.raises(OSError) as raised:
        network.hide_address(namespace, IP)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    os.close(namespace)
    assert len(os.listdir("/proc/self/fd")) == opened
    os.close(pidfd)
    assert os.readlink("/proc/thread-self/ns/net") == own


def test_not_a_namespace() -> None:
    with open(os.devnull) as file, pytest.raises(OSError):
        network.show_address(file.fileno(), IP)
