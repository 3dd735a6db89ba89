"""What systemd is told, and what it kept."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.agent.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[3]


def test_without_systemd_nothing_happens() -> None:
    environment = {"HOME": "/"}
    supervisor = Supervisor.from_environment(environment)
    supervisor.tell("READY=1")
    supervisor.store("a", 0)
    supervisor.drop("a")
    supervisor.forget()
    assert not supervisor.stores and supervisor.take("") == {} and environment == {"HOME": "/"}
    supervisor.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_messages(tmp_path: Path, abstract: bool) -> None:
    """As sd_notify(3) has them, the descriptor along with the one that stores it."""
    name = f"@ax-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(5)
        systemd.bind("\0" + name[1:] if abstract else name)
        supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": name})
        supervisor.tell("READY=1", "STATUS=well")
        with open(os.devnull) as file:
            supervisor.store("app-1", file.fileno())
        supervisor.drop("app-1")
        supervisor.close()
        received = [socket.recv_fds(systemd, 4096, 4)[:2] for _ in range(3)]
    assert [data for data, _ in received] == [
        b"READY=1\nSTATUS=well",
        b"FDSTORE=1\nFDNAME=app-1",
        b"FDSTOREREMOVE=1\nFDNAME=app-1",
    ]
    assert [len(descriptors) for _, descriptors in received] == [0, 1, 0]
    os.close(received[1][1][0])


def test_systemd_is_gone(tmp_path: Path) -> None:
    supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": str(tmp_path / "none")})
    supervisor.tell("READY=1")
    supervisor.close()
    supervisor.tell("READY=1")


TAKE = """
import os, sys
from appswitch.agent.supervisor import Supervisor
if sys.argv[1]: os.environ["LISTEN_PID"] = sys.argv[1].replace("ME", str(os.getpid()))
supervisor = Supervisor.from_environment(os.environ)
apps = supervisor.take("app-")
print({name: os.get_inheritable(fd) for name, fd in apps.items()}, supervisor.take("flight-"))
print([key for key in os.environ if key.startswith("LISTEN")])
supervisor.forget()
"""


@pytest.mark.parametrize(
    ("pid", "names", "taken"),
    [
        ("ME", "app-1:flight-9:app-2", "{'1': False, '2': False} {'9': 4}"),
        ("ME", "app-1:app-1:BAD NAME", "{'1': False} {}"),
        ("ME", "app-1", "{'1': False} {}"),
        ("1", "app-1:flight-9:app-2", "{} {}"),
        ("", "app-1:flight-9:app-2", "{} {}"),
    ],
)
def test_what_was_kept(pid: str, names: str, taken: str) -> None:
    """By name; what is not for this process, or has no good name, is left alone or closed."""
    child = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" 3</dev/null 4</dev/null 5</dev/null', sys.executable, "-c", TAKE, pid],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "LISTEN_FDS": "3", "LISTEN_FDNAMES": names},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert child.stdout == f"{taken}\n[]\n"


def test_the_unit_is_right(tmp_path: Path) -> None:
    """By systemd's own word, with a program that is there in the place of ax."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    text = (ROOT / "deploy/systemd/appswitch.service").read_text()
    unit = tmp_path / "appswitch.service"
    unit.write_text(text.replace("/usr/local/bin/ax", "/bin/true"))
    found = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=20, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
