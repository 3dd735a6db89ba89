"""`ax conformance` as a program: real processes, their ends, and what is printed."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from xds_subject import Inside

from appswitch.agent.cli import main
from appswitch.errors import UsageError
from appswitch.xds.conformance.catalogue import CASES
from appswitch.xds.conformance.own import Parts
from appswitch.xds.conformance.place import Place
from appswitch.xds.conformance.report import junit, line, summary
from appswitch.xds.conformance.script import Case, Fault
from appswitch.xds.conformance.subject import Command
from appswitch.xds.conformance.suite import judge, run, select
from appswitch.xds.conformance.transcript import Mode
from appswitch.xds.conformance.verdict import Outcome, Verdict
from appswitch.xds.sotw import Sotw

OWN = ["{address}", "{mode}", "{node}", "{directory}/applied"]
PROBE = """sh -c 'test ! -e "$0" || sed -n "s/^$1 //p" "$0"' {directory}/applied"""
MUTANTS = Path(__file__).resolve().parents[2] / "xds_mutants.py"


def case(name: str) -> Case:
    return select(CASES, name)[0]


@pytest.mark.timeout(120)
def test_our_client_as_a_process_and_one_with_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C18 needs the probe."""
    common = ["conformance", "--probe", PROBE, "--junit", str(tmp_path / "junit.xml"), "--jobs", "2"]
    own = [sys.executable, "-m", "appswitch.xds.conformance.own", *OWN]
    assert main([*common, "--case", "c18,C02,C56", "--patience", "40", "--client", *own]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert sorted(row.split()[:2] for row in rows[:-1]) == [["C02", "pass"], ["C18", "pass"], ["C56", "n/a"]]
    assert rows[-1] == "2 passed, 0 failed, 1 not applicable"
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "0", "1")
    mutant = [sys.executable, str(MUTANTS), "C02", *OWN]
    assert main([*common, "--case", "C02", "--client", *mutant]) == 1
    assert "the ACK of CDS version 2 has version_info ''" in capsys.readouterr().out
    (failure,) = ElementTree.parse(tmp_path / "junit.xml").getroot().iter("failure")
    assert "version_info" in (failure.get("message") or "")


def place(directory: Path) -> Place:
    return Place("C01", "sotw", 15010, directory)


def test_nothing_of_a_client_stays(tmp_path: Path) -> None:
    """Not what it started either, nor what does not hear SIGTERM."""

    async def scenario() -> list[int]:
        tell = "echo $! $$ > {directory}/new; mv {directory}/new {directory}/pids"
        script = f"trap '' TERM; sleep 1000 & {tell}; wait"
        command = Command(["sh", "-c", script])
        await command.start(place(tmp_path))
        await asyncio.to_thread(until, (tmp_path / "pids").exists)
        assert command.ended() == ""
        await command.stop()
        return [int(text) for text in (tmp_path / "pids").read_text().split()]

    for pid in asyncio.run(scenario()):
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(") ")[2][0] == "Z"


def test_a_client_is_told_where_the_server_is(tmp_path: Path) -> None:
    async def scenario() -> Command:
        command = Command(["sh", "-c", "echo {address} {mode} {other} $AX_CONFORMANCE_PORT; exit 3"])
        await command.start(place(tmp_path))
        await asyncio.to_thread(until, command.ended)
        return command

    ended = asyncio.run(scenario()).ended()
    assert ended == "the client ended (exit code 3): 127.0.0.1:15010 sotw {other} 15010"


def test_a_client_that_ends_fails() -> None:
    outcome = asyncio.run(judge(case("C01"), lambda: Command(["sh", "-c", "echo no reason; exit 1"])))
    assert outcome.verdict is Verdict.FAILED
    assert outcome.detail == "sotw: the client ended (exit code 1): no reason"


def test_a_probe_that_fails_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        command = Command(["sleep", "100"], ["sh", "-c", "echo $0 is unknown >&2; exit 4"])
        await command.start(place(tmp_path))
        try:
            with pytest.raises(Fault, match=r"exit code 4: 10.0.0.1:80 is unknown"):
                await command.probe("10.0.0.1:80")
        finally:
            await command.stop()

    asyncio.run(scenario())


def test_a_client_of_the_other_dialogue_is_not_judged() -> None:
    parts = Parts(dialogues={Mode.SOTW: Sotw, Mode.DELTA: Sotw})
    outcome = asyncio.run(judge(case("C34"), lambda: Inside(parts), patience=2.0))
    assert (outcome.verdict, outcome.detail) == (
        Verdict.NOT_APPLICABLE,
        "the client does not speak delta xDS",
    )


def test_without_a_probe() -> None:
    class Silent(Inside):
        can_probe = False

    outcomes = asyncio.run(run(select(CASES, "C04,C27"), lambda: Silent(Parts()), jobs=2))
    assert [(outcome.verdict, outcome.detail) for outcome in outcomes] == [
        (Verdict.PASSED, "on the wire alone: what was applied needs --probe"),
        (Verdict.NOT_APPLICABLE, "nothing of it is on the wire: it needs --probe"),
    ]


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM to `ax conformance` ends its clients."""
    script = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000"
    command = [
        sys.executable,
        "-m",
        "appswitch",
        "conformance",
        "--case",
        "C01",
        "--client",
        "sh",
        "-c",
        script,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until((tmp_path / "pid").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130
    assert not _alive(int((tmp_path / "pid").read_text()))


def until(condition: Callable[[], object]) -> None:
    """Within a deadline: another process's doing has no event."""
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--client CMD… is missing"),
        ("--case C99 --client true", "--case C99: no such case; there are C01 to C58"),
        ("--jobs 0 --client true", "--jobs 0: at least 1"),
        ("--patience nan --client true", "--patience nan"),
        ("--probe '\"' --client true", "--probe"),
        ("--case C01 --client /nonexistent", "--client /nonexistent: No such file or directory"),
    ],
)
def test_mistakes(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", *shlex.split(arguments)]) in (64, 65, 69)
    assert message in capsys.readouterr().err


def test_all_58_cases_are_there() -> None:
    assert [item.id for item in CASES] == [f"C{number:02}" for number in range(1, 59)]
    assert all(item.source and bool(item.scripts) != bool(item.reason) for item in CASES)
    with pytest.raises(UsageError):
        select(CASES, "C00")


def test_the_page_has_every_case() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "conformance.md").read_text()
    for item in CASES:
        assert f"| {item.id} | {item.title} |" in page
        assert item.reason in page


def test_what_clients_say_does_not_break_a_report() -> None:
    hostile = Outcome(replace(case("C01"), title="x" * 100), Verdict.FAILED, "\x1b[31m\x00]]><&\ud800", 1.0)
    assert "\x1b" not in line(hostile) and "\x00" not in line(hostile)
    (failure,) = ElementTree.fromstring(junit([hostile], "a <client>").encode()).iter("failure")
    assert "]]><&" in (failure.get("message") or "")
    assert summary([hostile]) == "0 passed, 1 failed, 0 not applicable"
