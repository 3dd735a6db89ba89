"""`ax run` is invisible: exit status, signals, standard streams, children; and it says what is wrong."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from e2e.node import Node
from e2e.servers import PROGRAMS, PYTHON, start_echo


@pytest.mark.parametrize("status", [0, 1, 3, 127, 255])
def test_exit_status(node: Node, mode: list[str], status: int) -> None:
    assert node.run(*mode, "sh", "-c", f"exit {status}").code == status


def test_streams_and_directory(node: Node, mode: list[str], tmp_path: Path) -> None:
    result = node.run(*mode, "sh", "-c", "pwd; cat; echo err >&2", cwd=tmp_path, stdin="in\n")
    assert (result.code, result.out, result.err) == (0, f"{tmp_path}\nin\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_killed_by_a_signal(node: Node, mode: list[str], number: signal.Signals) -> None:
    process = node.start(*mode, "sh", "-c", "echo up; exec sleep 100")
    node.wait(lambda: "up" in process.output(), "the program runs")
    process.popen.send_signal(number)
    assert process.wait() == -number


def test_signal_handler_runs(node: Node, mode: list[str]) -> None:
    process = node.start(
        *mode, "sh", "-c", "trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    )
    node.wait(lambda: "up" in process.output(), "the program runs")
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 5
    assert "got it" in process.output()


def test_program_not_found(node: Node, mode: list[str]) -> None:
    result = node.run(*mode, "no-such-program")
    assert result.code == 127
    assert "no-such-program" in result.err


def test_no_daemon(own_node: Node) -> None:
    own_node.stop_daemon()
    result = own_node.run("true")
    socket = own_node.run_dir / "daemon.sock"
    assert result.code == 69
    assert result.err == f"ax run: no daemon at {socket} (start one with: ax daemon)\n"
    assert result.out == ""
    assert own_node.ax("get", "apps").code == 69


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--ip", "1.1.1"], "1.1.1"),
        (["--ip", "1.1.1.256"], "1.1.1.256"),
        (["--labels", "role"], "role"),
        (["--expose", "80"], "80"),
        (["--expose", "80:99999"], "99999"),
        (["--user", "no-such-user"], "no-such-user"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_bad_flags(node: Node, flags: list[str], word: str) -> None:
    result = node.run(*flags, "true")
    assert result.code in (64, 65), result
    assert word in result.err
    assert result.err.count("\n") == 1


def test_older_spellings(node: Node) -> None:
    assert node.run("--", "echo", "-n", "x").ok() == "x"
    assert node.ax("--labels", "role=test", "echo", "y").ok() == "y\n"


def test_user(node: Node, mode: list[str]) -> None:
    assert node.run("--user", "nobody", *mode, "whoami").ok() == "nobody\n"
    assert node.run(*mode, "whoami").ok() == "root\n"


def test_empty_namespace_has_the_own_address(node: Node) -> None:
    out = node.run("--ip", "3.3.3.3", "ip", "-o", "-4", "addr").ok()
    assert "3.3.3.3/32" in out
    assert "10.0.2.15" not in out


def test_interface(node: Node) -> None:
    assert ": eth7" in node.run("--interface", "eth7", "ip", "-o", "link").ok()


def test_resolv_conf(node: Node, mode: list[str]) -> None:
    before = Path("/etc/resolv.conf").read_text()
    inside = node.run(*mode, "cat", "/etc/resolv.conf").ok()
    assert "nameserver 241.255.255.53" in inside
    assert node.run("--dns-override=false", *mode, "cat", "/etc/resolv.conf").ok() == before
    assert Path("/etc/resolv.conf").read_text() == before


def test_children(node: Node, mode: list[str]) -> None:
    ip = node.fresh_ip()
    start_echo(node, *mode, name="parent", ip=ip)
    out = node.run("--ip", "2.2.2.2", *mode, PYTHON, str(PROGRAMS / "children.py"), ip, "7000").ok()
    assert [line.split()[0] for line in out.splitlines()] == ["fork", "exec", "daemon"]
    assert out.count('"peer": "2.2.2.2"') == 3


def test_app_lives_as_long_as_its_children(node: Node, mode: list[str]) -> None:
    """A program that goes into the background by itself stays an app until its last process ends."""
    ip = node.fresh_ip()
    script = f"{PYTHON} {PROGRAMS / 'echo.py'} child 7000 & exit 0"
    node.run("--ip", ip, *mode, "setsid", "sh", "-c", f"({script}) >/dev/null 2>&1")
    node.wait_service(ip, 7000)
    out = node.run(*mode, PYTHON, str(PROGRAMS / "dial.py"), "one", ip, "7000").ok()
    assert '"name": "child"' in out
