"""kill -9 of daemon and holder at once, under a supervisor with an fd store: the apps merely wait."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.node import AX, Node
from e2e.servers import PROGRAMS, PYTHON, start_echo
from e2e.supervised import SupervisedNode

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


@pytest.fixture
def supervised() -> Iterator[SupervisedNode]:
    folder = Path(tempfile.mkdtemp(prefix="axt-"))
    folder.chmod(0o755)
    try:
        node = SupervisedNode(folder)
        yield node
        leaks = node.close()
    finally:
        shutil.rmtree(folder)
    assert not leaks, leaks


def dials(node: Node, client_output: str, count: int) -> bool:
    lines = client_output.splitlines()
    assert all(line.startswith("ok") for line in lines), lines
    return len(lines) >= count


def test_both_killed_at_once(supervised: SupervisedNode) -> None:
    """Again and again, with clients that make sockets in an empty namespace all the time."""
    node, ip = supervised, supervised.fresh_ip()
    start_echo(node, name="lives", ip=ip)
    client = node.start("--ip", "2.2.2.2", *DIAL, "loop", ip, "7000")
    command = f"{AX} run --ip 2.2.2.4 {' '.join(DIAL)} loop {ip} 7000; :"
    inner = node.start("--ip", "2.2.2.3", "sh", "-c", command)
    for _ in range(4):
        counts = [len(app.output().splitlines()) for app in (client, inner)]
        for app, count in zip((client, inner), counts, strict=True):
            node.wait(lambda app=app, count=count: dials(node, app.output(), count + 15), "it dials", 20)
        node.kill()
        node.wait(lambda: node.answers(), "the next daemon", 20)
    out = node.run(*DIAL, "one", ip, "7000").ok()
    assert json.loads(out)["name"] == "lives"
    assert {app["appip"] for app in node.get("apps")} == {ip, "2.2.2.2", "2.2.2.3", "2.2.2.4"}
    events = [json.loads(line)["event"] for line in node.log().splitlines()]
    assert events.count("daemon.started") == 5 and events.count("holder.found") == 0


def test_what_is_stored(supervised: SupervisedNode) -> None:
    """One for each app in an empty namespace, gone with it; READY and STOPPING are said; SIGHUP is no end."""
    node = supervised
    assert node.daemon is not None
    daemon = node.daemon
    app = node.start("--ip", "2.2.2.2", "sleep", "60")
    node.wait(lambda: node.get("apps"), "the app")
    app_id = node.get("apps")[0]["appid"]
    node.wait(lambda: f"FDSTORE=1 FDNAME=app-{app_id}" in daemon.output(), "it is stored")
    app.stop(signal.SIGKILL)
    node.wait(lambda: f"FDSTOREREMOVE=1 FDNAME=app-{app_id}" in daemon.output(), "it is dropped")
    Path(node.base / "daemon.log").rename(node.base / "old.log")
    os.kill(node.daemon_pid(), signal.SIGHUP)
    node.wait(lambda: "log.reopened" in node.log(), "the log is opened anew")
    assert node.stop_daemon() == 0
    said = daemon.output()
    assert said.index("READY=1") < said.index("STOPPING=1")
    assert said.splitlines()[-1].split() == ["stored", "at", "the", "end:"]


def test_clean_forgets_what_is_stored(supervised: SupervisedNode) -> None:
    node = supervised
    node.start("--ip", "2.2.2.2", "sleep", "60")
    node.wait(lambda: node.get("apps"), "the app")
    node.stop_daemon()
    node.start_daemon("--clean")
    assert node.get("apps") == []
