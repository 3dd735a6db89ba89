"""Names under `ax run`, through every kind of resolver, with and without a namespace of the app's own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.resolvers import foreign_server
from e2e.resolvers.build import KINDS, build, parse
from e2e.servers import PYTHON

FOREIGN_PORT = 5533
"""The manual's example (4.1.7): a forwarding server on another port than 53."""
WEB, PAIR, VSERVICE = "1.9.0.1", ("1.9.0.2", "1.9.0.3"), "1.9.0.4"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def names_node() -> Iterator[Node]:
    """A node whose names all tests here ask for; nothing in it listens on port 53."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    node = Node(folder, "--dns-servers", f"127.0.0.1:{FOREIGN_PORT}")
    try:
        node.host_start(PYTHON, str(Path(foreign_server.__file__)), str(FOREIGN_PORT))
        for name, ip in (("web", WEB), ("Pair", PAIR[0]), ("pair", PAIR[1])):
            node.start("--name", name, "--ip", ip, "sleep", "600")
        node.start("--name", "made", "sleep", "600")
        node.ax("create", "vservice", "myvsvc", "--ip", VSERVICE, "--ports", "80:80", "--backends", WEB).ok()
        node.wait(lambda: len(node.get("apps")) == 4, "the apps are there")
        yield node
    finally:
        leaks = node.close()
        shutil.rmtree(folder)
    assert not leaks, leaks


@pytest.fixture(scope="module")
def programs(short_tmp: Path) -> dict[str, list[str]]:
    """The resolver programs made so far."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
def test_resolver(
    names_node: Node, programs: dict[str, list[str]], short_tmp: Path, kind: str, mode: list[str]
) -> None:
    if kind not in programs:
        programs[kind] = build(kind, short_tmp / kind)
    expected = {
        "web": WEB,
        "web.appswitch.local": WEB,
        "WEB.AppSwitch.local": WEB,
        "pair": ",".join(PAIR),
        "myvsvc": VSERVICE,
        "foreign.example": foreign_server.ADDRESS,
        "nobody": "-",
        "nobody.appswitch.local": "-",
        "nobody.example": "-",
        f"ptr:{WEB}": "web.appswitch.local",
        f"ptr:{VSERVICE}": "myvsvc.appswitch.local",
    }
    before = time.monotonic()
    assert parse(names_node.run(*mode, *programs[kind], *expected).ok()) == expected
    assert time.monotonic() - before < 15, "no look-up may wait for a timeout"


def test_getent(names_node: Node, mode: list[str]) -> None:
    out = names_node.run(*mode, "getent", "ahostsv4", "web").ok()
    assert out.split()[:2] == [WEB, "STREAM"]
    assert names_node.run(*mode, "getent", "ahosts", "nobody").code == 2


def test_a_name_without_an_address_gets_a_virtual_one(names_node: Node, mode: list[str]) -> None:
    address = names_node.run(*mode, "getent", "ahostsv4", "made").ok().split()[0]
    assert IPv4Address(address).packed[0] == 241


def test_dig_by_udp_and_tcp(names_node: Node, mode: list[str]) -> None:
    if not shutil.which("dig"):
        pytest.skip("no dig here")
    for how in ("+notcp", "+tcp"):
        assert names_node.run(*mode, "dig", how, "+short", "web.appswitch.local").ok() == f"{WEB}\n"
        full = names_node.run(*mode, "dig", how, "web", "AAAA").ok()
        assert "status: NOERROR" in full and "ANSWER: 0" in full


def test_a_name_goes_when_its_app_ends(names_node: Node) -> None:
    app = names_node.start("--name", "brief", "--ip", "1.9.0.9", "sleep", "600")

    def known() -> bool:
        return names_node.run("getent", "ahostsv4", "brief").code == 0

    names_node.wait(known, "the name is there")
    app.stop()
    names_node.wait(lambda: not known(), "the name is gone")


def test_without_override_the_hosts_resolver_is_used(names_node: Node) -> None:
    assert (
        names_node.run("--dns-override=false", "cat", "/etc/resolv.conf").ok()
        == Path("/etc/resolv.conf").read_text()
    ), "the host's file"
    assert "nameserver 241.255.255.53" in names_node.run("cat", "/etc/resolv.conf").ok()


def test_garbage_on_the_dns_port_is_one_event_and_answers_go_on(names_node: Node) -> None:
    junk = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); "
        "[s.sendto(bytes([7]) * size, ('241.255.255.53', 53)) for size in (1, 11, 13, 600)]"
    )
    names_node.run(PYTHON, "-c", junk).ok()
    names_node.wait(lambda: names_node.events("dns.malformed"), "the event")
    assert names_node.run("getent", "ahostsv4", "web").ok().split()[0] == WEB


def test_the_hosts_own_names_are_untouched(names_node: Node) -> None:
    assert names_node.host("getent", "ahostsv4", "web").code != 0
