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


def test_not_where_there_is_a_network(elsewhere: int) -> None:
    """Programs in it may mean that address; the launcher that denies the network is not believed."""
    inside = ["nsenter", f"--net=/proc/{elsewhere}/ns/net", "ip", "link"]
    subprocess.run([*inside, "add", "br7", "type", "bridge"], check=True)
    pidfd = os.pidfd_open(elsewhere)
    opened = len(os.listdir("/proc/self/fd"))
    os.close(network.show_address(pidfd, IP))  # it is down
    subprocess.run([*inside, "set", "br7", "up"], check=True)
    with pytest.raises(PermissionError):
        network.show_address(pidfd, IP)
    assert len(os.listdir("/proc/self/fd")) == opened
    os.close(pidfd)


@pytest.mark.parametrize(
    ("rights", "uid", "commands"),
    [
        (["true"], 0, False),  # root of the node
        (["--bounding-set=-all,+net_admin"], 0, True),
        (["--bounding-set=-all,+net_raw"], 0, False),
        (["--reuid=4711", "--clear-groups"], 4711, False),
        (
            ["--reuid=4711", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin"],
            4711,
            True,
        ),
    ],
)
def test_who_commands_our_network(rights: list[str], uid: int, commands: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: capabilities")
    wrapper = ["setpriv", *rights] if rights != ["true"] else []
    with subprocess.Popen([*wrapper, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert network.commands_ours(process.pid, uid) is commands
        process.kill()
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not network.commands_ours(process.pid, 0)  # its capabilities count in there alone
        process.kill()
