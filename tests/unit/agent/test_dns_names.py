"""The table of names: spelling, precedence, and what is not indexed twice."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from appswitch.agent.dns_names import NameTable, normal_name
from appswitch.errors import InvalidInput
from appswitch.model import App, Class, PortMap, Snapshot, VService


def test_names_are_checked() -> None:
    assert normal_name("Web.Example.") == "web.example"
    assert normal_name("bücher.example") == "xn--bcher-kva.example"
    for wrong in (
        "",
        ".",
        "a..b",
        "a b",
        "a:80",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "-x",
        "a.*.b",
        "ü" * 70,
    ):
        with pytest.raises(InvalidInput):
            normal_name(wrong)


def app(number: int, name: str, address: str) -> App:
    return App(number, f"uid-{number}", Class(), IPv4Address(address), name)


SNAPSHOT = Snapshot(
    node="host0",
    node_ip=IPv4Address("10.0.2.15"),
    apps=(
        app(1, "web", "5.5.5.5"),
        app(2, "Web", "4.4.4.4"),
        app(3, "front", "6.6.6.6"),
        app(4, "", "7.7.7.7"),
    ),
    vservices=(VService("front", (IPv4Address("8.8.4.4"),), (PortMap(80, 80),), ()),),
    names=(("web", (IPv4Address("10.96.0.1"),)), ("*.wild.example", (IPv4Address("10.96.0.7"),))),
)


def test_the_first_source_decides_and_apps_of_one_name_are_together() -> None:
    names = NameTable.build(SNAPSHOT)
    assert list(map(str, names.addresses("web") or ())) == ["4.4.4.4", "5.5.5.5"]
    assert list(map(str, names.addresses("front") or ())) == ["8.8.4.4"]
    assert list(map(str, names.addresses("a.b.wild.example") or ())) == ["10.96.0.7"]
    assert names.addresses("wild.example") is None and names.is_above("example")


def test_reverse_names_of_all_sources_but_no_short_forms() -> None:
    cluster = IPv4Address("10.96.0.9")
    full = "reviews.default.svc.cluster.local"
    names = NameTable.build(replace(SNAPSHOT, names=((full, (cluster,)), ("reviews", (cluster,)))))
    assert names.names_of(cluster) == (full,)
    assert names.names_of(IPv4Address("6.6.6.6")) == ("front",)
    assert names.names_of(IPv4Address("7.7.7.7")) == ()


def test_only_what_changed_is_indexed_again() -> None:
    before = NameTable.build(SNAPSHOT)
    more = replace(SNAPSHOT, apps=(*SNAPSHOT.apps, app(5, "new", "9.9.9.9")))
    after = NameTable.build(more, IPv4Network("241.0.0.0/8"), before)
    assert after.zones[0] is before.zones[0] and after.zones[2] is before.zones[2]
    assert after == NameTable.build(more) and after.addresses("new")
