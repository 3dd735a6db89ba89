"""Recorded pushes of a real Istiod: what happens on the way and what is reported (ends: test_expected.py)."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from expectations import FIXTURES, ROOT, recordings

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Connected, Ignored, Publish, Received, Rejected, Send, SendDelta
from appswitch.xds.recording import load, walk
from appswitch.xds.resources import CDS, EDS, LDS, RDS, RawResource, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator

RECORDINGS = recordings()
BOOKINFO = RECORDINGS["bookinfo"]["sotw"]
ALL = [folder for dialogues in RECORDINGS.values() for folder in dialogues.values()]

Table = dict[str, tuple[set[str], dict[str, int]]]
"""Name of a vservice to its VIPs and its backends with their weights."""


def table(translation: Translation) -> Table:
    """A translation in the form the expectations are written in."""
    return {
        vservice.name: (
            {f"{address}:{vservice.ports[0].port}" for address in vservice.addresses},
            {f"{backend.address}:{backend.port}": backend.weight for backend in vservice.backends},
        )
        for vservice in translation.vservices
    }


DOMAIN = "default.svc.cluster.local"


def test_nothing_of_bookinfos_policies_is_left_out() -> None:
    translator = Translator(addresses=(IPv4Address("10.244.9.1"),))
    outcomes = {outcome.step: outcome for outcome in walk(load(BOOKINFO), translator)}
    kinds = {
        step: {item.field for item in outcome.translation.unsupported} for step, outcome in outcomes.items()
    }
    found = {kind for each in kinds.values() for kind in each if kind.startswith("inbound.rbac")}
    assert found == {"inbound.rbac.strangers"}


def test_bookinfo_reconnect_asks_for_everything_and_changes_nothing() -> None:
    outcome = next(item for item in walk(load(BOOKINFO), Translator()) if item.step == "reconnect")
    sends = [command for command in outcome.commands if isinstance(command, Send)]
    assert [send.first for send in sends[:5]] == [True, False, False, False, False]
    assert all(send.version and not send.nonce for send in sends[:5])
    assert not any(isinstance(command, Publish) for command in outcome.commands)


def test_subset_swap_step_by_step_and_never_without_backends() -> None:
    ads, translator = Sotw(), Translator()
    ads.handle(Connected())
    halves = {
        "start": {"1": 50, "2": 50},
        "swap-v1-for-v3": {"2": 50, "3": 50},
        "swap-back": {"1": 50, "2": 50},
    }
    seen: Table = {}
    for step in load(FIXTURES / "subset-swap").steps:
        for message in step.messages:
            for command in ads.handle(Received(message.response)):
                if isinstance(command, Publish):
                    now = table(translator.translate(command.config))
                    for name in seen:
                        assert now[name][1], f"{step.name}: {name} lost its backends on the way"
                    seen = now
        if step.name in halves:
            for host, vip, port in (("redis", "10.96.2.1", 6379), ("web", "10.96.2.2", 80)):
                backends = {f"10.244.2.{pod}:{port}": weight for pod, weight in halves[step.name].items()}
                assert seen[f"{host}.{DOMAIN}:{port}"] == ({f"{vip}:{port}"}, backends), step.name
    assert seen[f"redis.{DOMAIN}:6379"][1] == {"10.244.2.3:6379": 1}
    assert seen[f"web.{DOMAIN}:80"][1] == {"10.244.2.1:80": 1, "10.244.2.2:80": 1, "10.244.2.3:80": 1}


def test_kitchen_is_reported() -> None:
    start = next(walk(load(FIXTURES / "kitchen"), Translator())).translation
    kinds = Counter(item.field for item in start.unsupported)
    assert kinds == {
        "cluster.circuit_breakers.max_connections": 3,
        "cluster.connect_timeout": 11,
        "cluster.lb_policy": 7,
        "cluster.outlier_detection": 3,
        "endpoint.metadata.tlsMode": 5,
        "inbound.rbac": 1,  # this translator has no address
        "inbound.transport_socket": 1,
        "route.match.headers": 1,
        "route.route.retry_policy": 4,
    }


def test_corners_are_reported() -> None:
    start = next(walk(load(FIXTURES / "corners"), Translator())).translation
    found = {(item.field, item.resource) for item in start.unsupported}
    assert {
        ("cluster.transport_socket", f"outbound|9000||twin-a.{DOMAIN}"),
        ("filter_chain_match.server_names", "0.0.0.0_443"),
        ("listener.address", "0.0.0.0_3306"),
        ("listener.address.ipv6", "fd00::14_9001"),
        ("virtual_host.domains", f"9080/htwin-b.{DOMAIN}:9080"),
        ("virtual_host.domains", f"9082/hcidr.{DOMAIN}:9082"),
    } <= found


def test_odd_endpoints_are_reported() -> None:
    start = next(walk(load(FIXTURES / "odd-endpoints"), Translator())).translation
    kinds = {item.field for item in start.unsupported}
    assert {"cluster", "endpoint.address.pipe", "endpoint.metadata.tlsMode"} <= kinds


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_recording_is_accepted_whole(folder: Path) -> None:
    here = {"localhost": (IPv4Address("127.0.0.1"),)}
    for outcome in walk(load(folder), Translator(), hosts=here):
        assert outcome.translation.vservices
        assert not [command for command in outcome.commands if isinstance(command, Rejected | Ignored)]
        assert not [
            command for command in outcome.commands if isinstance(command, Send | SendDelta) and command.error
        ]


def meaning(translation: Translation) -> tuple[object, ...]:
    """A translation without order.  Of two HTTP services on one VIP ("htwin") Istiod names either."""
    return (
        {name: row for name, row in table(translation).items() if "htwin" not in name},
        {vip for name, (vips, _) in table(translation).items() if "htwin" in name for vip in vips},
        translation.names,
        {item for item in translation.unsupported if "htwin" not in item.resource},
        translation.outbound,
    )


@pytest.mark.parametrize("name", RECORDINGS)
def test_both_dialogues_come_to_the_same_at_every_step(name: str) -> None:
    """The same changes of the same mesh, recorded once in each."""
    world, delta = (list(walk(load(each), Translator())) for each in RECORDINGS[name].values())
    assert [outcome.step for outcome in world] == [outcome.step for outcome in delta]
    for one, other in zip(world, delta, strict=True):
        assert meaning(one.translation) == meaning(other.translation), one.step


@pytest.mark.parametrize("url", [CDS, EDS, LDS, RDS])
def test_each_resource_in_turn_corrupt(url: str) -> None:
    """On top of what is in force: nothing changes, and the NACK names the resource."""
    recording = load(BOOKINFO)
    ads, translator = Sotw(), Translator()
    next(walk(recording, translator, ads))
    before = translator.translate(ads.held.config())
    push = next(m.response for m in recording.steps[0].messages if m.response.type_url == url)
    for number, raw in enumerate(push.resources):
        broken = RawResource(url, raw.value[:-1])
        resources = (*push.resources[:number], broken, *push.resources[number + 1 :])
        commands = ads.handle(Received(Response(url, "bad", f"n{number}", resources)))
        nack = commands[0]
        assert isinstance(nack, Send)
        assert nack.error
        assert nack.version != "bad"
        assert translator.translate(ads.held.config()) == before


def test_a_folder_that_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        load(tmp_path)
    (tmp_path / "transcript.jsonl").write_text('{"step": "start"}\n')
    with pytest.raises(InvalidInput):
        load(tmp_path)
    with pytest.raises(InvalidInput, match="no step 'x'"):
        load(BOOKINFO).index("x")
