"""Recorded pushes of a real Istiod against vservices written down by hand from its Istio YAML."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Connected, Ignored, Publish, Received, Rejected, Send, SendDelta
from appswitch.xds.recording import load, walk
from appswitch.xds.resources import CDS, EDS, LDS, RDS, RawResource, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import ALLOW_ANY, REGISTRY_ONLY, Translation, Translator

ROOT = Path(__file__).resolve().parents[3]
BOOKINFO = ROOT / "istio-samples" / "bookinfo" / "recording"
FIXTURES = ROOT / "tests" / "fixtures" / "istiod"
ALL = [BOOKINFO, *sorted(FIXTURES.iterdir())]

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


def bookinfo(reviews: dict[str, int], without: tuple[str, ...] = ()) -> Table:
    """Bookinfo as its ServiceEntries and WorkloadEntries say."""
    rows: Table = {
        f"productpage.{DOMAIN}:9080": ({"10.96.1.1:9080"}, {"10.244.1.1:9080": 1}),
        f"details.{DOMAIN}:9080": ({"10.96.1.2:9080"}, {"10.244.1.2:9080": 1}),
        f"reviews.{DOMAIN}:9080": ({"10.96.1.3:9080"}, reviews),
        f"ratings.{DOMAIN}:9080": ({"10.96.1.4:9080"}, {"10.244.1.4:9080": 1}),
        f"mongodb.{DOMAIN}:27017": ({"10.96.1.5:27017"}, {"10.244.1.51:27017": 75, "10.244.1.52:27017": 25}),
        f"client.{DOMAIN}:8000": ({"10.96.1.90:8000"}, {"10.244.9.1:8000": 1}),
    }
    return {name: row for name, row in rows.items() if name.split(".")[0] not in without}


SPLIT = {"10.244.1.31:9080": 80, "10.244.1.32:9080": 20}
V3 = {"10.244.1.33:9080": 1}
V3_TWO = {"10.244.1.33:9080": 1, "10.244.1.34:9080": 1}
V3_SECOND = {"10.244.1.34:9080": 1}
BOOKINFO_STEPS = {
    "start": (bookinfo(SPLIT), ALLOW_ANY),
    "shift-reviews-to-v3": (bookinfo(V3), ALLOW_ANY),
    "scale-reviews-v3": (bookinfo(V3_TWO), ALLOW_ANY),
    "reviews-v3-first-pod-gone": (bookinfo(V3_SECOND), ALLOW_ANY),
    "delete-details": (bookinfo(V3_SECOND, ("details",)), ALLOW_ANY),
    "authorization-allow": (bookinfo(V3_SECOND, ("details",)), ALLOW_ANY),
    "authorization-deny": (bookinfo(V3_SECOND, ("details",)), ALLOW_ANY),
    "registry-only": (bookinfo(V3_SECOND, ("details",)), REGISTRY_ONLY),
    "reconnect": (bookinfo(V3_SECOND, ("details",)), REGISTRY_ONLY),
    "reconnect-ratings-deleted-while-away": (bookinfo(V3_SECOND, ("details", "ratings")), REGISTRY_ONLY),
}


def test_bookinfo_step_by_step() -> None:
    outcomes = {outcome.step: outcome for outcome in walk(load(BOOKINFO), Translator())}
    assert list(outcomes) == list(BOOKINFO_STEPS)
    for step, (expected, outbound) in BOOKINFO_STEPS.items():
        translation = outcomes[step].translation
        assert table(translation) == expected, step
        assert translation.outbound == outbound, step
        names = {name.removesuffix(f".{DOMAIN}") for name, _ in translation.names}
        assert names == {name.split(".")[0] for name in expected}, step
    assert dict(outcomes["start"].translation.names)[f"reviews.{DOMAIN}"] == (IPv4Address("10.96.1.3"),)


def test_bookinfo_outbound_policy_is_reported_where_it_comes() -> None:
    outcomes = {outcome.step: outcome for outcome in walk(load(BOOKINFO), Translator())}
    kinds = {
        step: {item.field for item in outcome.translation.unsupported} for step, outcome in outcomes.items()
    }
    assert not any(kind.startswith("inbound.rbac") for each in kinds.values() for kind in each)
    assert "outbound_traffic_policy" not in kinds["authorization-deny"]
    assert "outbound_traffic_policy" in kinds["registry-only"]


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


def test_kitchen() -> None:
    tables = {item.step: item.translation for item in walk(load(FIXTURES / "kitchen"), Translator())}
    start = table(tables["start"])
    assert start == {
        # the header match is passed over; locality r1/z1 comes first, all of it is healthy
        f"reviews.{DOMAIN}:9080": ({"10.96.0.10:9080"}, {"10.244.0.11:9080": 80, "10.244.0.13:9080": 20}),
        f"ratings.{DOMAIN}:9080": ({"10.96.0.11:9080"}, {"10.244.2.1:9080": 1}),
        f"ratings.{DOMAIN}:9090": ({"10.96.0.11:9090"}, {"10.244.2.1:9090": 1}),
        f"echo-tcp.{DOMAIN}:9000": ({"10.96.0.20:9000"}, {"10.244.1.1:19000": 1, "10.244.1.2:19000": 1}),
        f"auto.{DOMAIN}:7000": ({"10.96.0.21:7000"}, {"10.244.1.9:7000": 1}),
        "api.partner.test:443": ({"10.96.0.30:443"}, {}),  # a host name: not resolved yet
    }
    assert table(tables["echo-weights-0-100"])[f"echo-tcp.{DOMAIN}:9000"][1] == {"10.244.1.2:19000": 1}
    assert table(tables["echo-subset-v1-removed"])[f"echo-tcp.{DOMAIN}:9000"][1] == {"10.244.1.2:19000": 1}
    added = {"10.244.2.1:9080": 1, "10.244.2.2:9080": 1}
    assert table(tables["ratings-endpoint-added"])[f"ratings.{DOMAIN}:9080"][1] == added
    assert (tables["mtls-strict"].outbound, tables["allow-any"].outbound) == (REGISTRY_ONLY, ALLOW_ANY)
    kinds = Counter(item.field for item in tables["start"].unsupported)
    assert kinds == {
        "cluster.circuit_breakers.max_connections": 3,
        "cluster.connect_timeout": 11,
        "cluster.lb_policy": 7,
        "cluster.outlier_detection": 3,
        "endpoint.address.name": 1,
        "endpoint.metadata.tlsMode": 5,
        "inbound.transport_socket": 1,
        "outbound_traffic_policy": 1,
        "route.match.headers": 1,
        "route.route.retry_policy": 4,
    }


def test_corners() -> None:
    start = next(walk(load(FIXTURES / "corners"), Translator())).translation
    a = {"10.244.21.3:9080": 1}
    assert table(start) == {
        f"client.{DOMAIN}:8000": ({"10.96.9.90:8000"}, {"10.244.9.1:8000": 1}),
        f"client.{DOMAIN}:8080": ({"10.96.9.90:8080"}, {"10.244.9.1:8080": 1}),
        f"dual.{DOMAIN}:9001": ({"10.96.9.14:9001"}, {"10.244.21.16:9001": 1}),  # its endpoint comes twice
        f"dual.{DOMAIN}:9081": ({"10.96.9.14:9081"}, {"10.244.21.16:9081": 1}),  # its VIP only by NDS
        f"empty.{DOMAIN}:9002": ({"10.96.9.6:9002"}, {}),
        f"htwin-a.{DOMAIN}:9080": ({"10.96.9.2:9080"}, a),  # htwin-b has the same VIP: it loses
        f"multi.{DOMAIN}:9001": ({"10.96.9.3:9001"}, {"10.244.21.5:9001": 1}),
        f"multi2.{DOMAIN}:9001": ({"10.96.9.4:9001"}, {"10.244.21.6:9001": 1}),
        f"multi2.{DOMAIN}:9001@10.96.99.4": ({"10.96.99.4:9001"}, {"10.244.21.1:9000": 1}),  # by subnet
        f"multi2.{DOMAIN}:9081": ({"10.96.9.4:9081", "10.96.99.4:9081"}, a),  # a route to another host
        f"multi2.{DOMAIN}:80": ({"10.96.9.4:80", "10.96.99.4:80"}, a),
        f"tcp9080.{DOMAIN}:9080": ({"10.96.9.5:9080"}, {"10.244.21.8:9080": 1}),
        f"twin-a.{DOMAIN}:9000": ({"10.96.9.1:9000"}, {"10.244.21.1:9000": 1}),
    }
    found = {(item.field, item.resource) for item in start.unsupported}
    assert {
        ("cluster.transport_socket", f"outbound|9000||twin-a.{DOMAIN}"),
        ("filter_chain_match.server_names", "0.0.0.0_443"),
        ("listener.address", "0.0.0.0_3306"),
        ("listener.address.ipv6", "fd00::14_9001"),
        ("virtual_host.domains", f"9080/htwin-b.{DOMAIN}:9080"),
        ("virtual_host.domains", f"9082/hcidr.{DOMAIN}:9082"),
    } <= found


def test_odd_endpoints() -> None:
    start = next(walk(load(FIXTURES / "odd-endpoints"), Translator())).translation
    drain = {"10.244.23.1:9000": 1, "10.244.23.2:9000": 3}
    assert table(start) == {
        f"drain.{DOMAIN}:9000": ({"10.96.9.3:9000"}, drain),
        f"far.{DOMAIN}:9000": ({"10.96.9.1:9000"}, drain),  # half goes to a host that does not exist
        f"udsish.{DOMAIN}:9000": ({"10.96.9.2:9000"}, {}),
    }
    kinds = {item.field for item in start.unsupported}
    assert {"cluster", "endpoint.address.pipe", "endpoint.metadata.tlsMode"} <= kinds


@pytest.mark.parametrize(
    "folder", ALL, ids=lambda folder: folder.parent.name if folder == BOOKINFO else folder.name
)
def test_every_recording_is_accepted_whole(folder: Path) -> None:
    for outcome in walk(load(folder), Translator()):
        assert outcome.translation.vservices
        assert not [command for command in outcome.commands if isinstance(command, Rejected | Ignored)]
        assert not [
            command for command in outcome.commands if isinstance(command, Send | SendDelta) and command.error
        ]


PAIRS = {folder: folder.parent / f"{folder.name}-delta" for folder in ALL[1:] if "delta" not in folder.name}
PAIRS[BOOKINFO] = FIXTURES / "bookinfo-delta"


def meaning(translation: Translation) -> tuple[object, ...]:
    """A translation without order.  Of two HTTP services on one VIP ("htwin") Istiod names either."""
    return (
        {name: row for name, row in table(translation).items() if "htwin" not in name},
        {vip for name, (vips, _) in table(translation).items() if "htwin" in name for vip in vips},
        translation.names,
        {item for item in translation.unsupported if "htwin" not in item.resource},
        translation.outbound,
    )


@pytest.mark.parametrize("folder", PAIRS, ids=lambda folder: folder.name)
def test_both_dialogues_come_to_the_same_at_every_step(folder: Path) -> None:
    """The same changes of the same mesh, recorded once in each."""
    world, delta = (list(walk(load(each), Translator())) for each in (folder, PAIRS[folder]))
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
