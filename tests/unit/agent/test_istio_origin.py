"""Where decisions come from, on what a real Istiod sent; and as `ax explain` shows it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from unit.agent.test_istio_inventory import REVIEWS
from unit.xds.test_recordings import BOOKINFO, FIXTURES

from appswitch.agent.api_explain import Decided, decided, explanation
from appswitch.agent.istio_origin import origin
from appswitch.agent.requests import ExplainQuery
from appswitch.agent.resource_origin import OriginView, decode
from appswitch.errors import InvalidInput
from appswitch.model import Snapshot
from appswitch.xds.ads import Config, Connected, Publish, Received
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.make import assignment, cluster, dns_cluster, response, tcp_listener
from appswitch.xds.recording import load
from appswitch.xds.resolution import Answer, Lookup, wanted
from appswitch.xds.resources import Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator

NOW = 70.0


class Mesh:
    """The agent's pure parts: what was sent, held and translated."""

    def __init__(self) -> None:
        self.ads: Dialogue = Sotw()
        self.translator = Translator()
        self.translation = Translation()
        self.config = Config()
        self.answers: dict[Lookup, Answer] = {}
        self.ads.handle(Connected())

    @classmethod
    def recorded(cls, folder: Path) -> Mesh:
        """After the first step of a recording, which came at 10.0."""
        mesh = cls()
        for message in load(folder).steps[0].messages:
            mesh.hear(message.response)
        return mesh

    def hear(self, said: Response, now: float = 10.0) -> None:
        for command in self.ads.handle(Received(said, now)):
            if isinstance(command, Publish):
                self.config = command.config
                self.translation = self.translator.translate(self.config, self.answers)

    def origin(self, address: str, port: int) -> OriginView | None:
        """As the daemon gets it."""
        types = self.ads.held.types
        return decode(msgspec.json.encode(origin(self.translator, types, IPv4Address(address), port, NOW)))

    def decided(self, address: str, port: int) -> Decided:
        snapshot = Snapshot("host0", IPv4Address("10.0.2.15"), vservices=self.translation.vservices)
        return decided(snapshot, ExplainQuery(address, port))


def test_a_route_with_weights() -> None:
    found = Mesh.recorded(BOOKINFO).origin("10.96.1.3", 9080)
    assert found is not None
    assert [(each.type, each.name, each.part, each.weight, each.object) for each in found.sources] == [
        ("lds", "0.0.0.0_9080", "", None, ""),
        ("rds", "9080", f"{REVIEWS}:9080", None, "virtual-service default/reviews"),
        ("cds", f"outbound|9080|v1|{REVIEWS}", "", 80, "destination-rule default/reviews"),
        ("eds", f"outbound|9080|v1|{REVIEWS}", "", None, ""),
        ("cds", f"outbound|9080|v2|{REVIEWS}", "", 20, "destination-rule default/reviews"),
        ("eds", f"outbound|9080|v2|{REVIEWS}", "", None, ""),
    ]
    assert {(bool(each.version), each.seconds, each.note) for each in found.sources} == {(True, 60.0, "")}
    assert [(each.address, each.cluster, each.health) for each in found.endpoints] == [
        ("10.244.1.31:9080", f"outbound|9080|v1|{REVIEWS}", "HEALTHY"),
        ("10.244.1.32:9080", f"outbound|9080|v2|{REVIEWS}", "HEALTHY"),
    ]


def test_a_tcp_listener_names_the_object_of_its_chain() -> None:
    found = Mesh.recorded(BOOKINFO).origin("10.96.1.5", 27017)
    assert found is not None
    assert (found.sources[0].name, found.sources[0].object) == (
        "10.96.1.5_27017",
        "virtual-service default/mongodb",
    )
    assert [source.type for source in found.sources] == ["lds", "cds", "eds", "cds", "eds"]


def test_what_nothing_of_istio_leads_to() -> None:
    assert Mesh.recorded(BOOKINFO).origin("10.96.1.3", 1) is None


def test_explained_in_words_and_as_data() -> None:
    mesh = Mesh.recorded(FIXTURES / "kitchen")
    address = str(next(v for v in mesh.translation.vservices if v.name.startswith("reviews.")).addresses[0])
    found = mesh.decided(address, 9080)
    assert found.istio
    made = explanation(found, mesh.origin(address, 9080))
    v1, v2 = (f"outbound|9080|{subset}|{REVIEWS}" for subset in ("v1", "v2"))
    candidate = made.candidates[1]
    assert (candidate.cluster, candidate.priority, candidate.locality, candidate.health) == (
        v2,
        0,
        "r2/z1",
        "HEALTHY",
    )
    titles, *rows = (re.split("  +", line) for line in made.lines[4:8])
    assert titles[5:] == ["CLUSTER", "PRIORITY", "LOCALITY", "HEALTH"]
    assert rows == [
        ["10.244.0.11:9080", "-", "80", "80.0%", "ok", v1, "0", "r1/z1", "HEALTHY"],
        ["10.244.0.13:9080", "-", "20", "20.0%", "ok", v2, "0", "r2/z1", "HEALTHY"],
        ["10.244.0.12:9080", "-", "0", "-", "not used", v1, "1", "r1/z2", "HEALTHY"],
    ]
    titles, *rows = (re.split("  +", line) for line in made.lines[8:])
    assert titles == ["SOURCE", "NAME", "WEIGHT", "VERSION", "OBJECT", "NOTE"]
    version = "2026-11-24T04:11:58Z/58"
    assert rows[:4] == [
        ["LDS", "0.0.0.0_9080", "-", version, "-"],
        ["RDS", f"9080 {REVIEWS}:9080", "-", version, "virtual-service default/reviews"],
        ["CDS", v1, "80", version, "destination-rule default/reviews"],
        ["EDS", v1, "-", version, "-"],
    ]


def test_an_origin_that_cannot_be_told() -> None:
    found = Mesh.recorded(BOOKINFO).decided("10.96.1.3", 9080)
    made = explanation(found, None, "the agent is away")
    assert made.lines[-1] == "origin: unknown (the agent is away)"
    assert (made.origin, made.origin_unknown, made.candidates[0].cluster) == (None, "the agent is away", "")


def test_what_is_kept_by_make_before_break_is_said() -> None:
    mesh = Mesh()
    mesh.hear(response("1", cluster("a"), cluster("b")))
    mesh.hear(response("1", assignment("a", "10.0.0.1:80")))
    mesh.hear(response("1", tcp_listener("10.1.1.1", 80, a=1)))
    mesh.hear(response("2", cluster("b")))  # `a` is removed while the listener still names it
    found = mesh.origin("10.1.1.1", 80)
    assert found is not None
    assert [(each.type, each.version, each.note) for each in found.sources] == [
        ("lds", "1", ""),
        ("cds", "", "removed; used until nothing names it"),
        ("eds", "", "removed; used until nothing names it"),
    ]
    assert [each.address for each in found.endpoints] == ["10.0.0.1:80"]


def test_a_row_that_waits_is_led_by_the_clusters_of_before() -> None:
    mesh = Mesh()
    mesh.hear(response("1", cluster("a"), cluster("b")))
    mesh.hear(response("1", assignment("a", "10.0.0.1:80")))
    mesh.hear(response("1", tcp_listener("10.1.1.1", 80, a=1)))
    mesh.hear(response("2", tcp_listener("10.1.1.1", 80, b=1)))  # whose endpoints have not come
    found = mesh.origin("10.1.1.1", 80)
    assert found is not None
    assert [(each.type, each.name, each.note) for each in found.sources] == [
        ("lds", "10.1.1.1_80", ""),
        ("cds", "a", ""),
        ("eds", "a", ""),
    ]


def test_endpoints_behind_a_host_name_are_told_by_address() -> None:
    mesh = Mesh()
    mesh.hear(response("1", dns_cluster("a", "web.test:80")))
    (lookup,) = wanted(mesh.config.clusters.values())
    mesh.answers[lookup] = Answer((IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")))
    mesh.hear(response("1", tcp_listener("10.1.1.1", 80, a=1)))
    found = mesh.origin("10.1.1.1", 80)
    assert found is not None
    assert [each.type for each in found.sources] == ["lds", "cds"]
    assert [each.address for each in found.endpoints] == ["192.0.2.1:80", "192.0.2.2:80"]


def test_a_cluster_that_never_was() -> None:
    mesh = Mesh()
    mesh.hear(response("1", tcp_listener("10.1.1.1", 80, a=1)))
    found = mesh.origin("10.1.1.1", 80)
    assert found is not None
    assert (found.sources[1].name, found.sources[1].note) == (
        "a",
        "it does not exist: no connection goes there",
    )


def test_nonsense_from_the_agent() -> None:
    with pytest.raises(InvalidInput, match="not an origin"):
        decode(b"[]")
    assert decode(b"null") is None
