"""Rights that a container may have without being root of the node."""

from __future__ import annotations

import pytest

from e2e.node import AX, Node
from e2e.servers import PYTHON

DOCKER = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw"
"""What docker leaves to root in a container, as far as it matters here."""


def rights(bounding: str, *more: str) -> list[str]:
    """A program with no more than these."""
    return ["setpriv", f"--bounding-set={bounding}", *more]


def test_network_administrator_gets_no_socket_of_the_nodes(node: Node) -> None:
    """`docker run --net none --cap-add NET_ADMIN`: the node's sockets would obey it."""
    refused = node.host("unshare", "--net", *rights(f"{DOCKER},+net_admin"), AX, "run", "true")
    assert refused.code == 77 and "CAP_NET_ADMIN without being root of the node" in refused.err


def test_ambient_network_administrator(node: Node) -> None:
    """systemd's AmbientCapabilities=CAP_NET_ADMIN, of an ordinary user; with the node's own network he may do
    what he could do before."""
    argv = ["setpriv", "--reuid=4711", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin"]
    own = node.host(*argv, AX, "run", "--new-netns=false", "true")
    assert own.code == 0, own


SPOOF = """  # IP_TRANSPARENT, SO_MARK, SO_BINDTODEVICE
import errno, socket
sock = socket.socket()
for level, option, value in ((0, 19, 1), (1, 36, 1), (1, 25, b"br0")):
    try:
        sock.setsockopt(level, option, value)
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_raw_rights_do_not_work_on_the_nodes_sockets(node: Node) -> None:
    """Docker's default includes NET_RAW, by which a socket of the node's could take any address."""
    launch = ["unshare", "--net", *rights(f"{DOCKER},+sys_admin"), AX, "run"]
    out = node.host(*launch, PYTHON, "-c", SPOOF)
    assert out.ok().split() == ["EPERM"] * 3


@pytest.mark.parametrize(
    "claim", [("--ip", "8.8.8.8"), ("--name", "www.example.com"), ("--labels", "a=b")], ids=" ".join
)
def test_user_of_a_container(node: Node, claim: tuple[str, str]) -> None:
    """A container's `USER 1000` is the node's user 1000, wherever the run directory is mounted."""
    argv = ["unshare", "--net", "setpriv", "--reuid=1000", "--clear-groups"]
    refused = node.host(*argv, AX, "run", *claim, "true")
    assert refused.code == 77 and "--user-claims any" in refused.err
