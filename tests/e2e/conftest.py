"""Fixtures of the end-to-end tests: a node for many tests, or one of its own for a test that kills it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .node import Node

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder with a short path (Unix sockets allow 107 bytes), gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_node(short_tmp: Path) -> Iterator[Node]:
    """One daemon for all tests that leave it alone; at the end nothing may be left of it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    node = Node(short_tmp / "shared")
    yield node
    leaks = node.close()
    assert not leaks, leaks


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """The shared node, without apps before and after the test."""
    yield shared_node
    shared_node.stop_apps()


@pytest.fixture
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the test may break."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces, cgroups and eBPF")
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    try:
        node = Node(folder)
        yield node
        leaks = node.close()
    finally:
        shutil.rmtree(folder)
    assert not leaks, leaks


@pytest.fixture(params=["empty", "own"])
def mode(request: pytest.FixtureRequest) -> list[str]:
    """The network of an app: an empty namespace (the default) or the node's own."""
    return [] if request.param == "empty" else ["--new-netns=false"]


@pytest.fixture(scope="session")
def go_web(short_tmp: Path) -> Path:
    """A static Go program: HTTP server and client (pure-Go resolver, raw system calls, no libc)."""
    if not (go := shutil.which("go")):
        pytest.skip("no Go compiler here")
    target = short_tmp / "goweb"
    env = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    subprocess.run([go, "build", "-o", target, PROGRAMS / "goweb.go"], env=env, check=True, timeout=240)
    return target


@pytest.fixture(scope="session")
def java_classes(short_tmp: Path) -> Path:
    """Class path of the Java programs."""
    if not (javac := shutil.which("javac")):
        pytest.skip("no Java compiler here")
    target = short_tmp / "java"
    target.mkdir()
    subprocess.run([javac, "-d", target, PROGRAMS / "Web.java"], check=True, timeout=120)
    return target
