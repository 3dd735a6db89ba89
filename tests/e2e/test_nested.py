"""`ax run` inside `ax run`: the inner app is an app of its own, by its own flags, wherever it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.node import AX, Node
from e2e.servers import PROGRAMS, PYTHON, start_echo

ECHO, DIAL = str(PROGRAMS / "echo.py"), str(PROGRAMS / "dial.py")
OWN = "--new-netns=false"


@pytest.mark.parametrize("inner", ["", OWN], ids=["inner-empty", "inner-own"])
def test_identity(node: Node, mode: list[str], inner: str) -> None:
    """Address, names and policy of the inner app; the outer one keeps its own, before and after."""
    outer_ip, inner_ip, a, b = (node.fresh_ip() for _ in range(4))
    start_echo(node, *mode, "--labels", "team=a", name="a", ip=a)
    start_echo(node, *mode, "--labels", "team=b", name="b", ip=b)
    dial = f"{PYTHON} {DIAL} one"
    script = f"""
{dial} {a} 7000; {dial} {b} 7000
{AX} run {inner} --ip {inner_ip} --labels team=b -- sh -c '{dial} {a} 7000; {dial} {b} 7000'
{AX} run {inner} --ip {inner_ip} --labels team=a {PYTHON} {ECHO} inner 7000 &
while ! {dial} {inner_ip} 7000 | grep inner; do :; done
{dial} {a} 7000; {dial} {b} 7000
"""
    outer = node.start("--ip", outer_ip, "--labels", "team=a", *mode, "sh", "-c", script + "wait")
    dial_inner = ["--labels", "team=a", *mode, PYTHON, DIAL, "loop", inner_ip, "7000"]
    client = node.start("--ip", "2.2.2.2", *dial_inner)
    node.wait(lambda: "ok inner" in client.output(), "the inner server is reached at its own address")
    node.wait(lambda: outer.output().count("{") >= 7, "the outer shell's last dial")
    said = [json.loads(line) for line in outer.output().splitlines()]
    who = [line.get("name", line.get("errno")) for line in said]
    assert who == ["a", "EACCES", "EACCES", "b", "inner", "a", "EACCES"], who
    assert [said[at]["peer"] for at in (0, 3, 4, 5)] == [outer_ip, inner_ip, outer_ip, outer_ip]
    assert {app["appip"] for app in node.get("apps")} >= {outer_ip, inner_ip}


def test_the_inner_app_ends_alone(node: Node, mode: list[str]) -> None:
    """A server inside that is killed: its services go at once, the outer app's stay."""
    outer_ip, inner_ip = node.fresh_ip(), node.fresh_ip()
    script = f"{AX} run --ip {inner_ip} {PYTHON} {ECHO} inner 7000 & exec {PYTHON} {ECHO} outer 7000"
    node.start("--ip", outer_ip, *mode, "sh", "-c", script)
    node.wait_service(outer_ip, 7000)
    node.wait_service(inner_ip, 7000)
    (inner,) = (app for app in node.get("apps") if app["appip"] == inner_ip)
    os.kill(inner["pid"], signal.SIGKILL)
    node.wait(lambda: inner_ip not in str(node.get("apps")), "the inner app's end is seen")
    out = node.run(*mode, PYTHON, DIAL, "one", outer_ip, "7000").ok()
    assert json.loads(out)["name"] == "outer"
    assert "errno" in json.loads(node.run(*mode, PYTHON, DIAL, "one", inner_ip, "7000").ok())


def test_again_and_again(node: Node, mode: list[str]) -> None:
    """`watch ax run …`: many short apps inside one, each by its own flags; nothing piles up."""
    ip = node.fresh_ip()
    start_echo(node, *mode, name="server", ip=ip)
    dial = f"{PYTHON} {DIAL} one {ip} 7000"
    loop = f"for i in 1 2 3 4 5 6 7 8; do {AX} run --ip 2.2.2.$i -- {dial} || exit; done; {dial}; sleep 100"
    outer = node.start("--ip", "2.2.2.200", *mode, "sh", "-c", loop)
    node.wait(lambda: outer.output().count("\n") == 9, "nine dials", 30)
    seen = [json.loads(line)["peer"] for line in outer.output().splitlines()]
    assert seen == [f"2.2.2.{i}" for i in (*range(1, 9), 200)]
    node.wait(lambda: len(node.get("apps")) == 2, "the short ones have ended")


def test_three_deep(node: Node) -> None:
    """By exec alone, too: the same process becomes app after app."""
    ip = node.fresh_ip()
    start_echo(node, name="server", ip=ip)
    for outer, middle, inner in ((OWN, "", ""), ("", OWN, ""), ("", "", OWN), ("", "", "")):
        runs = [[AX, "run", *filter(None, [flag])] for flag in (middle, inner)]
        dial = [PYTHON, DIAL, "one", ip, "7000"]
        command = [*runs[0], "--ip", "2.2.2.2", *runs[1], "--ip", "2.2.2.3", *dial]
        out = node.run(*filter(None, [outer]), "--ip", "2.2.2.1", *command).ok()
        assert json.loads(out)["peer"] == "2.2.2.3"
    node.wait(lambda: len(node.get("apps")) == 1, "all have ended")


@pytest.mark.parametrize("victims", ["daemon", "holder", "both"])
def test_survives(own_node: Node, victims: str) -> None:
    """Whoever is killed, the inner app stays itself; with both at once, sockets that are there work on."""
    node = own_node
    code = f"import os; os.system('{AX} run --ip 2.2.2.3 {PYTHON} -i -u')"
    outer = node.start("--ip", "2.2.2.2", PYTHON, "-c", code, stdin=subprocess.PIPE)
    start_echo(node, name="server", ip="1.1.1.1")
    outer.send("import socket")
    dial = "print(socket.create_connection(('1.1.1.1', 7000), 20).makefile().readline())"

    def dials(count: int) -> None:
        outer.send(dial)
        node.wait(lambda: outer.output().count('"peer": "2.2.2.3"') == count, "the inner app dials", 20)

    dials(1)
    holder = node.holder_pid()
    assert node.daemon is not None and holder is not None
    if victims in ("daemon", "both"):
        node.daemon.popen.kill()
        node.daemon.wait()
    if victims in ("holder", "both"):
        os.kill(holder, signal.SIGKILL)
        node.wait(lambda: not Path(f"/proc/{holder}").exists(), "the holder is dead")
    if victims == "both":
        node.start_daemon()
        assert {app["appip"] for app in node.get("apps")} == {"1.1.1.1", "2.2.2.2", "2.2.2.3"}
        return
    dials(2)
    if victims == "daemon":
        node.start_daemon()
        dials(3)
        holder = node.holder_pid()
        assert holder is not None
        os.kill(holder, signal.SIGKILL)  # the next one hears of the inner app from the new daemon
        dials(4)
    assert {app["appip"] for app in node.get("apps")} == {"1.1.1.1", "2.2.2.2", "2.2.2.3"}
