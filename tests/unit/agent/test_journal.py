"""The journal: what is written is read, and a broken line loses only itself."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent import journal
from appswitch.agent.journal import AppRecord, Entry, Journal
from appswitch.errors import InvalidInput
from appswitch.model import (
    App,
    Backend,
    Class,
    Expose,
    Labels,
    LbPolicy,
    Mesh,
    PortMap,
    VService,
)


def app(number: int, **changes: object) -> AppRecord:
    fields = {
        "id": number,
        "uid": f"uid-{number}",
        "app_class": Class(Labels(frozenset({("role", "a b"), ("zone", "x")})), "ns", "sa"),
        "ip": IPv4Address("1.1.1.1"),
        "exposes": (Expose(80, 81), Expose(82, 83, IPv4Address("0.0.0.0"))),
        "cgroup": f"/ax-{number:08x}",
    } | changes
    return AppRecord(App(**fields), class_index=number)  # type: ignore[arg-type]


VSERVICE = VService(
    name="myvsvc",
    addresses=(IPv4Address("1.1.1.1"),),
    ports=(PortMap(8000, 8000),),
    backends=(Backend(IPv4Address("10.0.2.15"), 0, 3),),
    policy=LbPolicy.ROUND_ROBIN,
    source_ip=IPv4Address("10.0.0.1"),
    ports_text="[{8000 10000}]",
)


def fresh(run_dir: Path) -> Journal:
    def failed(reason: str) -> None:
        raise AssertionError(reason)

    return Journal(run_dir, failed)


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert fresh(tmp_path).read() == journal.Saved()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    first = fresh(tmp_path)
    first.start((), ())
    for number in (1, 2, 3):
        first.app(app(number))
    first.ended(2)
    first.vservice(VSERVICE)
    first.vservice(VService(name="gone", addresses=(), ports=(), backends=()))
    first.deleted("gone")
    saved = fresh(tmp_path).read()  # as after kill -9: nothing was closed
    assert saved == journal.Saved((app(1), app(3)), (VSERVICE,))
    first.close()


def test_the_next_daemon_begins_with_what_lives(tmp_path: Path) -> None:
    first = fresh(tmp_path)
    first.start((app(1), app(2)), (VSERVICE,))
    first.ended(1)
    second = fresh(tmp_path)
    second.start(second.read().apps, second.read().vservices)
    assert (tmp_path / "journal").read_bytes().count(b"\n") == 2
    assert second.read().apps == (app(2),)
    first.close()
    second.close()


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        b"{}",
        b"\xff\xfe",
        b'{"version":2,"ended":1}',
        b'{"version":1,"ended":1,"deleted":"x"}',
        b"[" * 5000,
    ],
)
def test_a_broken_line_loses_only_itself(tmp_path: Path, broken: bytes) -> None:
    lines = [
        journal.encode(Entry(1, app=app(1))),
        broken + b"\n",
        journal.encode(Entry(1, vservice=VSERVICE)),
    ]
    (tmp_path / "journal").write_bytes(b"".join(lines))
    saved = fresh(tmp_path).read()
    assert (saved.apps, saved.vservices) == ((app(1),), (VSERVICE,))
    assert [line for line, _ in saved.broken] == [2]


def test_a_line_cut_short_by_a_kill(tmp_path: Path) -> None:
    whole = journal.encode(Entry(1, app=app(1))) + journal.encode(Entry(1, app=app(2)))
    (tmp_path / "journal").write_bytes(whole[:-20])
    saved = fresh(tmp_path).read()
    assert saved.apps == (app(1),)
    assert len(saved.broken) == 1


def test_history_is_dropped(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    subject.start((app(7),), ())
    for _ in range(journal.HISTORY):
        subject.app(app(1))
        subject.ended(1)
    assert (tmp_path / "journal").read_bytes().count(b"\n") < journal.HISTORY + 10
    assert fresh(tmp_path).read().apps == (app(7),)
    assert not (tmp_path / "journal.new").exists()
    subject.close()


def test_a_full_disk_is_told_and_the_daemon_goes_on() -> None:
    reasons: list[str] = []
    subject = Journal(Path("/nonexistent"), reasons.append)
    subject._descriptor = os.open("/dev/full", os.O_WRONLY)
    subject.app(app(1))
    subject.close()
    assert reasons == ["No space left on device"]


def test_what_a_full_disk_refused_is_written_later(tmp_path: Path) -> None:
    reasons: list[str] = []
    subject = Journal(tmp_path, reasons.append)
    subject.start((), ())
    kept, subject._descriptor = subject._descriptor, os.open("/dev/full", os.O_WRONLY)
    subject.app(app(1))
    os.close(subject._descriptor)
    subject._descriptor = kept
    assert reasons == ["No space left on device"] and subject.read().apps == ()
    assert "No space left" in subject.problem
    subject.app(app(2))  # there is room again
    assert subject.read().apps == (app(1), app(2)) and reasons[1:] == [""] and not subject.problem
    subject.close()


def test_remove_forgets(tmp_path: Path) -> None:
    subject = fresh(tmp_path)
    subject.start((app(1),), ())
    subject.remove()
    assert subject.read() == journal.Saved()


@given(st.binary(max_size=200))
def test_arbitrary_lines_raise_only_invalid_input(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        journal.decode(line)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_lines(damage: bytes, where: int) -> None:
    line = journal.encode(Entry(1, app=app(1)))
    journal.replay(line[:where] + damage + line[where + len(damage) :])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.integers(1, 2**32 - 1), texts, st.dictionaries(texts, texts, max_size=3), st.integers(0, 9))
def test_decode_is_the_inverse_of_encode(number: int, name: str, labels: dict[str, str], index: int) -> None:
    record = app(number, name=name, app_class=Class(Labels(frozenset(labels.items()))))
    entry = Entry(1, app=AppRecord(record.app, index))
    assert journal.decode(journal.encode(entry)) == entry


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Said once, whatever is refused meanwhile; all is written once it can be, without another change."""
    reasons: list[str] = []
    folder = tmp_path / "run"
    folder.mkdir()
    subject = Journal(folder, reasons.append)
    subject.start((app(1),), ())
    subject.close()
    folder.rename(tmp_path / "away")
    subject.app(app(2))
    subject.save_istio(Mesh())
    subject.sweep()
    assert len(reasons) == 1 and "a restart may forget" in subject.problem
    (tmp_path / "away").rename(folder)
    assert subject.read_istio() == Mesh()
    subject.sweep()
    assert reasons[1:] == [""] and not subject.problem
    assert subject.read().apps == (app(1), app(2)) and (folder / "istio").exists()
    subject.close()
