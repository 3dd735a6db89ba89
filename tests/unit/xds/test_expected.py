"""Every step of every recording, in both dialogues, ends as its Istio YAML says (tests/expectations.py)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from ipaddress import IPv4Address

import pytest
from expectations import FOLDER, Row, Step, load, recordings, shares

from appswitch.model import LbPolicy, VService
from appswitch.xds import recording
from appswitch.xds.ads import Config, Ignored, Publish, Rejected
from appswitch.xds.translate import Translation, Translator

FOLDERS = recordings()
EXPECTED = {name: load(name) for name in FOLDERS}
PLAYS = [(name, dialogue) for name, dialogues in FOLDERS.items() for dialogue in dialogues]
POLICIES = {"ROUND_ROBIN": LbPolicy.ROUND_ROBIN}
"""Balances that are honoured; all others are approximated by Random."""

HOSTS = {"backend.partner.test": (IPv4Address("198.51.100.7"),), "localhost": (IPv4Address("127.0.0.1"),)}
"""What DNS says."""

Seen = dict[str, tuple[str, dict[str, Fraction], LbPolicy]]
"""`VIP:port` to host, shares and policy."""


@cache
def played(name: str, dialogue: str) -> dict[str, tuple[Config, Translation]]:
    """Configuration and translation at the end of each step.  Nothing may be rejected on the way."""
    steps, config = {}, Config()
    for outcome in recording.walk(recording.load(FOLDERS[name][dialogue]), Translator(), hosts=HOSTS):
        for command in outcome.commands:
            assert not isinstance(command, Rejected | Ignored), outcome.step
            if isinstance(command, Publish):
                config = command.config
        steps[outcome.step] = config, outcome.translation
    return steps


def rows(vservices: tuple[VService, ...]) -> Seen:
    """Vservices in the form of expectations."""
    result: Seen = {}
    for vservice in vservices:
        weights = {f"{backend.address}:{backend.port}": backend.weight for backend in vservice.backends}
        for address in vservice.addresses:
            vip = f"{address}:{vservice.ports[0].port}"
            assert vip not in result, f"two vservices at {vip}"
            result[vip] = vservice.name.rpartition(":")[0], shares(weights), vservice.policy
    return result


def wanted(row: Row) -> tuple[str, dict[str, Fraction], LbPolicy]:
    """A row as `rows` would show it."""
    found = {}
    for end, share in row.shares.items():
        host, _, port = end.rpartition(":")
        addresses = HOSTS.get(host, (host,))
        found |= {f"{address}:{port}": share / len(addresses) for address in addresses}
    return row.host, found, POLICIES.get(row.balance, LbPolicy.RANDOM)


def levels(config: Config, cluster: str) -> tuple[frozenset[str], ...]:
    """A cluster's endpoints by priority."""
    found: dict[int, set[str]] = {}
    for locality in config.assignments[cluster].localities:
        ends = {f"{end.ip}:{end.port}" for end in locality.endpoints}
        found.setdefault(locality.priority, set()).update(ends)
    return tuple(frozenset(found[priority]) for priority in sorted(found))


def compare(step: Step, config: Config, translation: Translation) -> None:
    """All of a step but what is pending."""
    pending = {vip for vip, variants in step.vips.items() if variants[0].pending}
    seen = {vip: row for vip, row in rows(translation.vservices).items() if vip not in pending}
    expected = {}
    for vip, variants in step.vips.items():
        choices = [wanted(row) for row in variants if not row.pending]
        if choices:
            expected[vip] = next((row for row in choices if row == seen.get(vip)), choices[0])
    assert seen == expected
    assert {name: frozenset(map(str, ips)) for name, ips in translation.names} == step.names
    assert translation.outbound == step.outbound
    assert {cluster: levels(config, cluster) for cluster in step.levels} == step.levels


def pending() -> Iterator[object]:
    """Every row of every step that is not done yet."""
    for name, dialogue in PLAYS:
        for title, step in EXPECTED[name].items():
            for vip, (row, *_) in step.vips.items():
                if row.pending:
                    mark = pytest.mark.xfail(reason=row.pending, strict=True, raises=AssertionError)
                    label = f"{name}-{dialogue}-{title}-{vip}"
                    yield pytest.param(name, dialogue, title, vip, id=label, marks=mark)


def test_every_file_belongs_to_a_recording() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(FOLDERS)


@pytest.mark.parametrize(("name", "dialogue"), PLAYS)
def test_every_step_ends_as_its_yaml_says(name: str, dialogue: str) -> None:
    steps = played(name, dialogue)
    assert list(steps) == list(EXPECTED[name])
    for title, step in EXPECTED[name].items():
        try:
            compare(step, *steps[title])
        except AssertionError as error:
            error.add_note(f"at the end of step {title}")
            raise


@pytest.mark.parametrize(("name", "dialogue", "title", "vip"), list(pending()))
def test_what_is_pending(name: str, dialogue: str, title: str, vip: str) -> None:
    _, translation = played(name, dialogue)[title]
    assert rows(translation.vservices).get(vip) == wanted(EXPECTED[name][title].vips[vip][0])
