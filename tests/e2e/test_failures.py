"""Full disks and maps, lost events, processes that stop half-way: who caused it is told, others go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.interceptor import libbpf
from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo

OWN = "--new-netns=false"
DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


@pytest.fixture
def small_disk() -> Iterator[Node]:
    """A node whose run directory is a disk of one megabyte."""
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    run_dir = folder / "run"
    run_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "small", run_dir], check=True)
    try:
        node = Node(folder)
        yield node
        node.stop_apps()
        node.stop_daemon()
    finally:
        subprocess.run(["umount", run_dir], check=True)
    leaks = node.close()
    shutil.rmtree(folder)
    assert not leaks, leaks


def test_disk_full(small_disk: Node) -> None:
    """Launches go on; it is said once, by health too; a daemon starts so; nothing is forgotten."""
    node = small_disk
    assert node.daemon is not None
    start_echo(node, name="before", ip="1.1.1.1")
    filler = node.run_dir / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    file.close()
    # The journal's own last page has room for a few lines yet.
    for _ in range(12):
        assert node.run(OWN, "--labels", f"padding={'x' * 300}", "true").code == 0
    assert len(node.events("journal.failed")) == 1
    assert any("journal" in problem for problem in node.get("health")["problems"])
    node.daemon.popen.kill()
    node.daemon.wait()
    node.start_daemon()
    assert {app["appip"] for app in node.get("apps")} >= {"1.1.1.1"}
    late = start_echo(node, name="late", ip="1.1.1.3")
    filler.unlink()
    node.wait(lambda: node.get("health")["status"] == "ok", "the journal is written again")
    node.daemon.popen.kill()
    node.daemon.wait()
    node.start_daemon()
    assert {app["appip"] for app in node.get("apps")} >= {"1.1.1.1", "1.1.1.3"}
    assert late.popen.poll() is None
    out = node.run(*DIAL, "one", "1.1.1.3", "7000").ok()
    assert json.loads(out)["name"] == "late"


CHILDREN = """
import os, socket
for _ in range(50):
    for _ in range(10):
        if os.fork() == 0:
            with socket.socket() as s: s.bind(("", 0))
            os._exit(0)
    while True:
        try: assert os.wait()[1] == 0
        except ChildProcessError: break
print("done")
"""


def test_many_short_children(node: Node, mode: list[str]) -> None:
    """Five hundred, each with a socket; nothing of them stays open anywhere."""
    assert node.run(*mode, "true").code == 0
    before = node.descriptors()
    assert node.run(*mode, PYTHON, "-S", "-c", CHILDREN, timeout=60).ok() == "done\n"
    node.wait(lambda: not node.get("apps"), "it has ended")
    node.wait(lambda: sum(node.descriptors().values()) <= sum(before.values()) + 2, "all is closed")


STEPS = """
import json, socket, sys, time
step, path = int(sys.argv[1]), sys.argv[2]
launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
launcher.connect(path)
if step > 0: launcher.send(json.dumps({"version": 1, "command": ["x"], "new_netns": step > 2}).encode())
if step > 1: assert launcher.recv(4096).startswith(b"ok")
print("there", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("last", [signal.SIGKILL, signal.SIGSTOP])
def test_stopped_at_each_step_of_its_launch(node: Node, last: signal.Signals) -> None:
    """Before and after its hello, with the answer read or not, and before the filter is handed over."""
    socket_path = str(node.run_dir / "daemon.sock")
    halted = [node.host_start(PYTHON, "-c", STEPS, str(step), socket_path) for step in range(4)]
    for each in halted:
        node.wait(lambda each=each: "there" in each.output(), "it is half-way")  # type: ignore[misc]
        each.popen.send_signal(last)
    begin = time.monotonic()
    for mode in ([], [OWN]):
        assert node.run(*mode, "true").code == 0
    assert time.monotonic() - begin < 8
    for each in halted:
        each.popen.kill()
        each.wait()
    node.wait(lambda: node.get("apps") == [], "none of them is left")


def test_stopped_holder(node: Node) -> None:
    """Apps in the node's network do not notice; a launch that needs it waits."""
    assert node.run("true").code == 0
    holder = node.holder_pid()
    assert holder is not None
    os.kill(holder, signal.SIGSTOP)
    try:
        waiting = node.start("echo", "well")
        assert node.run(OWN, "true").code == 0
        assert node.get("health") is not None and waiting.popen.poll() is None
    finally:
        os.kill(holder, signal.SIGCONT)
    assert waiting.wait() == 0 and "well" in waiting.output()


LISTENS = """
import socket, time
print("there", flush=True); input()
s = socket.socket(); s.bind(("", 8000))
for _ in range(15_000):
    s.listen(); s.shutdown(socket.SHUT_RDWR)
last = socket.create_server(("", 8001))
print("done", flush=True)
time.sleep(60)
"""


def test_events_overflow(own_node: Node) -> None:
    """A daemon that cannot read for a while has the right table afterwards."""
    node = own_node
    assert node.daemon is not None
    app = node.start("--ip", "3.3.3.3", OWN, PYTHON, "-c", LISTENS, stdin=subprocess.PIPE)
    node.wait(lambda: "there" in app.output(), "the app", 30)
    node.daemon.popen.send_signal(signal.SIGSTOP)
    app.send("")
    node.wait(lambda: "done" in app.output() or app.popen.poll() is not None, "30,000 events", 40)
    assert "done" in app.output(), app.output()
    node.daemon.popen.send_signal(signal.SIGCONT)
    node.wait_service("3.3.3.3", 8001)
    node.wait(lambda: node.events("events.lost"), "it says so")
    assert [server["serviceaddr"] for server in node.servers()] == ["3.3.3.3:8001"]


def test_pins_of_another_version(own_node: Node) -> None:
    """A pinned map of another layout: the daemon says so and what to do, and touches nothing."""
    node = own_node
    app = node.start(OWN, "sh", "-c", "echo up; exec sleep 60")
    node.wait(lambda: "up" in app.output(), "an app, so that the pins stay")
    node.stop_daemon()
    (pins,) = node.pins()
    (pins / "ports").unlink()
    lib = libbpf.library()
    made = lib.bpf_map_create(1, b"ports", 8, 16, 100, None)
    assert made >= 0 and lib.bpf_obj_pin(made, os.fsencode(pins / "ports")) == 0
    os.close(made)
    before = sorted(pins.iterdir())
    again = node.ax("daemon", "--run-dir", str(node.run_dir), timeout=30)
    assert again.code == 71 and again.err.count("\n") == 1, again
    assert str(pins) in again.err and "of another version" in again.err and "--clean" in again.err
    assert sorted(pins.iterdir()) == before
    node.stop_apps()  # --clean leaves alone what runs
    node.start_daemon("--clean")
