"""The log: JSON off a terminal, stable names, and a reference that is up to date."""

from __future__ import annotations

import ast
import io
import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.agent import logs
from appswitch.agent.logs import FIELDS, Event, open_log
from appswitch.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def test_json_on_a_pipe() -> None:
    stream = io.StringIO()
    log = open_log(None, stream)
    log(Event.APP_STARTED, app="f0000001", ip=IPv4Address("1.1.1.1"), pid=7)
    log(Event.TABLES_WRITTEN, rows=1)
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {"event": "app.started", "level": "info", "app": "f0000001", "ip": "1.1.1.1", "pid": 7}


def test_colours_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    open_log(None, stream)(Event.TASK_FAILED, task="dns", error="broken")
    assert "\x1b[" in stream.getvalue() and "daemon.task_failed" in stream.getvalue()


def test_nobodys_label_commands_the_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    open_log(None, stream)(Event.APP_STARTED, labels="a=\x1b]0;owned\x07", pid=7)
    assert "\x1b]0" not in stream.getvalue() and "\\x1b]0;owned" in stream.getvalue()


def test_a_full_disk_does_not_end_the_daemons_work() -> None:
    with open("/dev/full", "w", buffering=1) as full:
        log = logs.Log(open_log(None, full)._logger, full)
        for _ in range(2000):  # more than any buffer holds
            log(Event.APP_STARTED, app="f0000001")
        log.close()


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    for count in (1, 2):
        log = open_log(tmp_path / "log")
        log(Event.STARTED, apps=count)
        log.close()
    assert [json.loads(line)["apps"] for line in (tmp_path / "log").read_text().splitlines()] == [1, 2]


def test_events_of_other_parts_by_name() -> None:
    stream = io.StringIO()
    log = open_log(None, stream)
    log.note("istio.nacked", resource="x")
    log.note("something new", count=2)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["level"]) == ("istio.nacked", "warning")
    assert (second["event"], second["text"]) == ("note", "something new")


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/logs.md").read_text() == logs.reference(), (
        "run: python -m appswitch.agent.logs > docs/logs.md"
    )


def test_names_are_unique() -> None:
    assert len({event.label for event in Event}) == len(Event)
    assert len(FIELDS) == len(logs.Field)


def test_every_call_uses_known_fields() -> None:
    unknown = []
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            first = node.args[0]
            if (
                isinstance(first, ast.Attribute)
                and isinstance(first.value, ast.Name)
                and first.value.id == "Event"
            ):
                unknown += [
                    (path.name, k.arg) for k in node.keywords if k.arg is not None and k.arg not in FIELDS
                ]
    assert unknown == []


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--log-file {tmp_path}: Is a directory; name a file"):
        open_log(tmp_path)
