"""Every kind of resolver against the built-in DNS server alone: no app, no table, no kernel driver.

The server is on port 53 of 127.0.0.1 in namespaces of its own (network without a route out, mounts with our
resolv.conf); tests/e2e/test_names.py does the same through the whole product.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from e2e.resolvers.build import KINDS, MUSL_MOST, SEARCHES, build, parse
from kernel import names_server

from appswitch.agent.resolv_conf import resolv_conf

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "appswitch.local"
Ask = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network and mount namespaces"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs a command where the server serves."""
    conf = tmp_path_factory.mktemp("names") / "resolv.conf"
    conf.write_text(resolv_conf(IPv4Address("127.0.0.1"), DOMAIN))
    enter = f"ip link set lo up && mount --bind {conf} /etc/resolv.conf && exec "
    serve = f"{sys.executable} -P {names_server.__file__} 53"
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", enter + serve],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == "ready\n"

        def run(*argv: str) -> subprocess.CompletedProcess[str]:
            there = ["nsenter", "--net", "--mount", f"--target={server.pid}", "--", *argv]
            return subprocess.run(there, capture_output=True, text=True, timeout=60, check=False)

        yield run
        server.stdin.close()
        assert server.wait(10) == 0


@pytest.fixture(scope="module", params=KINDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One resolver program."""
    return build(request.param, tmp_path_factory.mktemp(request.param))


def test_resolver(ask: Ask, program: list[str], request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["program"]
    many = ",".join(sorted(names_server.MANY[:MUSL_MOST] if kind == "musl" else names_server.MANY))
    expected = {
        "web": names_server.WEB,
        "web.": names_server.WEB,
        "web.appswitch.local": names_server.WEB,
        "WeB.AppSwitch.LOCAL": names_server.WEB,
        "reviews.default.svc.cluster.local": names_server.MESH,
        "many": many,
        "foreign.example": names_server.FOREIGN,
        "nobody": "-",
        "nobody.appswitch.local": "-",
        "nobody.example": "-",
        f"ptr:{names_server.WEB}": "web.appswitch.local",
        "ptr:241.9.9.9": "-",
    }
    if kind in SEARCHES:
        expected["reviews.default.svc.cluster.local.appswitch.local"] = names_server.MESH
    before = time.monotonic()
    done = ask(*program, *expected)
    assert done.returncode == 0, done
    assert parse(done.stdout) == expected
    assert time.monotonic() - before < 10, "no look-up may wait for a timeout"


def test_getent(ask: Ask) -> None:
    lines = [line.split() for line in ask("getent", "ahosts", "web").stdout.splitlines()]
    assert [line[:2] for line in lines] == [[names_server.WEB, kind] for kind in ("STREAM", "DGRAM", "RAW")]
    assert ask("getent", "hosts", names_server.WEB).stdout.split() == [
        names_server.WEB,
        "web.appswitch.local",
    ]
    assert ask("getent", "ahosts", "nobody").returncode == 2
