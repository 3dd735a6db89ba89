"""`ax get`, `create`, `delete`, `explain` as typed: output, messages, exit codes, and start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from unit.agent.rest_state import MemoryState, daemon, manual_node1, manual_servers

from appswitch.agent import cli
from appswitch.agent.cli_args import DEFAULT_RUN_DIR
from appswitch.agent.render import KINDS
from appswitch.agent.settings import DEFAULT_RUN_DIR as SETTINGS_RUN_DIR

Capture = pytest.CaptureFixture[str]
MANUAL = "create vservice --ip 1.1.1.1 --backends 10.0.2.15 --expose 8000:10000 myvsvc"


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AX_RUN_DIR of each test."""
    monkeypatch.setenv("AX_RUN_DIR", str(tmp_path))
    return tmp_path


def ax(line: str) -> int:
    """Run a command line; words are split at blanks."""
    return cli.main(line.split())


def test_the_manuals_vservice(run_dir: Path, capsys: Capture) -> None:
    """3.1.2, then section 4.5."""
    state = MemoryState(manual_servers())
    with daemon(state, run_dir):
        assert ax(MANUAL) == 0
        assert capsys.readouterr().out == "Service 'myvsvc' created successfully with IP '1.1.1.1'.\n"
        assert ax("get vservices") == 0
        assert capsys.readouterr().out == (
            "VSNAME  VSTYPE  VSIP     VSPORTS         VSBACKENDIPS\n"
            "-----------------------------------------------------\n"
            "myvsvc  Random  1.1.1.1  [{8000 10000}]  [10.0.2.15]\n"
        )
        assert ax("delete vservice myvsvc") == 0
        assert capsys.readouterr().out == "Service 'myvsvc' deleted successfully.\n"
        assert ax("del vservice myvsvc") == 66
        assert capsys.readouterr().err == "ax del: no vservice 'myvsvc'\n"
    assert state.registry.vservices == ()


def test_the_other_spelling(run_dir: Path, capsys: Capture) -> None:
    with daemon(MemoryState(manual_servers()), run_dir):
        line = "create vservice web --ip=1.1.1.1 --backends 10.0.2.15,10.0.2.16:9000 --ports 80:8000,443:8443"
        assert ax(f"{line} --lbtype RoundRobin --source-ip 10.0.2.15") == 0
        assert ax("get vservice -o name") == 0
        assert capsys.readouterr().out.splitlines()[-1] == "web"
        assert ax("get vservice") == 0
        assert capsys.readouterr().out.splitlines()[-1] == (
            "web     RoundRobin  1.1.1.1  [{80 8000} {443 8443}]  [10.0.2.15 10.0.2.16:9000]"
        )


def test_without_ip_the_daemon_makes_one(run_dir: Path, capsys: Capture) -> None:
    with daemon(MemoryState(manual_servers()), run_dir):
        assert ax("create vservice --backends 10.0.2.15 --ports 80:8000 web") == 0
    assert capsys.readouterr().out == "Service 'web' created successfully with IP '241.1.2.3'.\n"


def test_a_taken_address_or_name(run_dir: Path, capsys: Capture) -> None:
    with daemon(MemoryState(manual_servers()), run_dir):
        assert ax(MANUAL) == 0
        assert ax(MANUAL) == 73
        assert "a vservice 'myvsvc' exists already" in capsys.readouterr().err
        assert ax(MANUAL.replace("myvsvc", "other")) == 73
        assert "1.1.1.1:8000 is taken by vservice 'myvsvc'" in capsys.readouterr().err
        assert ax(MANUAL.replace("1.1.1.1", "1.1.1.2") + " --source-ip 9.9.9.9") == 65
        assert "source-ip 9.9.9.9 is not an address of this node" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("create vservice --ip 1.1.1.1 --ports 80:80 web", 65, "backends: a vservice needs at least one"),
        ("create vservice --ip 1.1.1 --backends 2.2.2.2 --ports 80:80 web", 65, "ip '1.1.1'"),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 web", 65, "ports: a vservice needs at least one"),
        (
            "create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 80 web",
            65,
            "--ports '80' is not VIRTUAL:APPLICATION",
        ),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 80:0 web", 65, "--ports: '0' is no port"),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --expose 80:1.1.1.1:81 web", 65, "--expose"),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 1:1 --expose 1:1 web", 65, "two spellings"),
        (
            "create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 1:1 --lbtype Best web",
            65,
            "lbtype 'Best'",
        ),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 1:1 --external web", 64, "later release"),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 1:1", 64, "needs a name"),
        ("create vservice --ip 1.1.1.1 --backends 2.2.2.2 --ports 1:1 a_b!", 65, "name 'a_b!'"),
        ("create vservice --colour red web", 64, "unrecognized arguments: --colour"),
        ("create pod web", 64, "unknown resource 'pod'"),
        ("create", 64, "which resource"),
        ("delete pod web", 64, "unknown resource 'pod'"),
        ("delete vservice", 64, "NAME"),
        ("get pods", 64, "unknown resource 'pods'"),
        ("get", 64, "which resource"),
        ("get apps -o xml", 64, "invalid choice: 'xml'"),
        ("get apps more", 64, "unrecognized arguments: more"),
        ("explain", 64, "DEST"),
        ("explain --from a --labels b=c 1.1.1.1", 64, "not allowed with"),
        ("explain 1.1.1.1:x", 65, "destination port"),
        ("fly", 64, "unknown command 'fly' (ax -h lists the commands)"),
        ("--fly", 64, "unknown flag '--fly'"),
        ("run true", 64, "launcher"),
    ],
)
def test_mistakes_are_found_before_a_daemon_is_asked(
    line: str, code: int, message: str, capsys: Capture
) -> None:
    assert ax(line) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1 and shown.out == ""


@pytest.mark.parametrize("line", ["get apps", MANUAL, "delete vservice a", "explain 1.1.1.1"])
def test_no_daemon(line: str, run_dir: Path, capsys: Capture) -> None:
    assert ax(line) == 69
    command = line.split()[0]
    message = f"ax {command}: no daemon at {run_dir}/api.sock (start one with: ax daemon)\n"
    assert capsys.readouterr().err == message


def test_drivers_without_a_daemon(capsys: Capture) -> None:
    assert ax("get drivers") == 0
    shown = capsys.readouterr()
    assert "no daemon" in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == ["kernel", "user", "ptrace"]


def test_run_dir_flag_wins(tmp_path: Path, capsys: Capture) -> None:
    assert ax(f"get apps --run-dir {tmp_path}/other") == 69
    assert f"{tmp_path}/other/api.sock" in capsys.readouterr().err
    assert DEFAULT_RUN_DIR == SETTINGS_RUN_DIR


def test_formats(run_dir: Path, capsys: Capture) -> None:
    with daemon(MemoryState(manual_node1()), run_dir):
        for resource in (kind.name for kind in KINDS):
            assert ax(f"get {resource} -o json") == 0
            plain = json.loads(capsys.readouterr().out)
            assert ax(f"get {resource} --output=yaml") == 0
            assert yaml.safe_load(capsys.readouterr().out) == plain
            assert ax(f"get {resource} -o name") == 0
            assert len(capsys.readouterr().out.splitlines()) == len(plain)
            assert ax(f"get {resource} -o wide") == 0
            assert len(capsys.readouterr().out.splitlines()) == len(plain) + 2


def test_explain(run_dir: Path, capsys: Capture) -> None:
    with daemon(MemoryState(manual_servers()), run_dir):
        assert ax("explain --labels role=test 1.1.1.1") == 0
        assert "f880063e" in capsys.readouterr().out
        assert ax("explain 1.1.1.1:80") == 0
        assert "EACCES" in capsys.readouterr().out
        assert ax("explain --from nobody 1.1.1.1") == 66
        assert "there is no app 'nobody'" in capsys.readouterr().err
        assert ax("explain --from f83e8600 nowhere") == 66
        assert "'nowhere'" in capsys.readouterr().err


def test_help_and_version(capsys: Capture) -> None:
    for line in ("", "-h", "--help", "help"):
        assert ax(line) == 0
        text = capsys.readouterr().out
        assert all(
            f"  {name}" in text for name in ("daemon", "run", "get", "create", "delete, del", "explain")
        )
    assert ax("version") == 0
    assert capsys.readouterr().out.startswith("ax ")
    assert ax("create -h") == 0
    assert "vservice" in capsys.readouterr().out


def python(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Another Python with our path."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30)


def test_get_imports_nothing_heavy() -> None:
    """aiohttp alone takes half a second; asyncio a tenth."""
    heavy = {"aiohttp", "asyncio", "yaml", "structlog", "grpc", "google.protobuf", "importlib.metadata"}
    code = (
        "import sys; from appswitch.agent.cli import main\n"
        "assert main(['get', 'apps']) == 69\n"
        f"print({heavy} & set(sys.modules))"
    )
    ended = python(code)
    assert (ended.returncode, ended.stdout) == (0, "set()\n"), ended.stderr


def test_help_of_a_command(capsys: Capture) -> None:
    ended = python("from appswitch.agent.cli import main; raise SystemExit(main(['get', '-h']))")
    assert ended.returncode == 0 and "RESOURCE" in ended.stdout


def test_a_closed_or_full_output_is_no_traceback() -> None:
    code = "import sys; from appswitch.agent.cli import main; sys.exit(main(['get', 'drivers']))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-c", code], env=env, stdout=closed, stderr=subprocess.PIPE, timeout=30
        )
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], env=env, stdout=full, stderr=subprocess.PIPE, timeout=30
        )
    assert ended.returncode == 74 and b"ax get: No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_poor_terminal(run_dir: Path) -> None:
    """What the output's encoding cannot hold is escaped, not a traceback."""
    code = "import sys; from appswitch.agent.cli_args import write; write('日本\\n')"
    ended = python(code, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stdout) == (0, "\\u65e5\\u672c\n")
