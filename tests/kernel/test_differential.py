"""The programs in the kernel do what `decide()` says: random meshes, real connects.

Every app dials every destination of interest; the errno, or who answered, must be one that the verdict
allows.  `--cases N` meshes (default 6), of about 2,000 dials each, from `--seed S`; a failure names both.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from errno import ECONNREFUSED, ENETUNREACH, errorcode
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from e2e.node import Node
from e2e.sandbox import NODE_IP
from kernel.mesh import HOST_PORT, Mesh, start_host_program

from appswitch.interceptor.decision import Kind, Verdict, decide
from appswitch.interceptor.index import Index
from appswitch.model import Destination, Snapshot

CHANGES = 6
"""Random changes to each mesh, each followed by all dials again."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node in the node's own network: nothing is injected, so that it is fast."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    folder = Path(tempfile.mkdtemp(prefix="axk-"))
    folder.chmod(0o755)
    node = Node(folder)
    yield node
    leaks = node.close()
    shutil.rmtree(folder)
    assert not leaks, leaks


def native(address: str, port: int) -> str:
    """What a dial directly from the node gets: no route leads out, one program listens."""
    if address != NODE_IP:
        return errorcode[ENETUNREACH]
    return "host" if port == HOST_PORT else errorcode[ECONNREFUSED]


def allowed(verdict: Verdict, address: str, port: int, names: dict[int, str]) -> set[str]:
    """Errno or names that the verdict lets a dial end with."""
    match verdict.kind:
        case Kind.REFUSE | Kind.WAIT:
            return {errorcode[verdict.error]}
        case Kind.DIRECT:
            return {native(address, port)}
        case Kind.BALANCE:
            return {
                names[pick.app] if pick.app else native(str(pick.address), pick.port)
                for pick in verdict.picks
            }


def check(mesh: Mesh, seed: int, snapshot: Snapshot) -> int:
    """Dials everything from every app; how many dials."""
    index = Index.of(snapshot)
    names = {app.id: app.name for app in snapshot.apps}
    destinations = mesh.destinations(snapshot) * 2
    for puppet in mesh.puppets:
        client = next(app for app in snapshot.apps if app.name == puppet.name)
        answers = puppet.order(mesh.node, dial=destinations)
        for (address, port), answer in zip(destinations, answers, strict=True):
            got = answer["name"] if "name" in answer else errorcode.get(answer["errno"], "timeout")
            verdict = decide(index, client, Destination(IPv4Address(address), port))
            want = allowed(verdict, address, port, names)
            assert got in want, (
                f"seed {seed}: {puppet.name} ({puppet.ip}, {puppet.labels}) to {address}:{port} got {got}, "
                f"want one of {want}: {verdict.why}\n{snapshot}"
            )
    return len(destinations) * len(mesh.puppets)


@pytest.mark.timeout(0)
def test_kernel_does_what_decide_says(node: Node, request: pytest.FixtureRequest) -> None:
    first, cases = request.config.getoption("--seed"), request.config.getoption("--cases")
    dials, began = 0, time.monotonic()
    for seed in range(first, first + cases):
        start_host_program(node)
        mesh = Mesh(node, random.Random(seed))
        dials += check(mesh, seed, mesh.settle())
        for _ in range(CHANGES):
            mesh.change()
            dials += check(mesh, seed, mesh.settle())
        mesh.close()
    print(f"{dials} dials in {time.monotonic() - began:.0f} s")
    assert dials > 1000 * cases
