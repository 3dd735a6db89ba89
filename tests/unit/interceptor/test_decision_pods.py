"""The decision for apps with a network of their own, and towards them."""

from __future__ import annotations

from dataclasses import replace
from errno import EACCES, ECONNREFUSED
from ipaddress import IPv4Address

import pytest

from appswitch.agent.registry import Registry
from appswitch.interceptor.decision import Kind, Verdict, decide
from appswitch.interceptor.index import Index
from appswitch.model import App, Class, Destination, Labels, Protocol, Service, Snapshot

NODE, ONE, POD = map(IPv4Address, ("10.0.2.15", "1.1.1.1", "10.1.0.5"))
DNS = IPv4Address("241.255.255.53")
ROLE = Class(Labels(frozenset({("role", "a")})))
SERVER = App(1, "", ROLE, ONE, own_ip=POD)
SIBLING = App(2, "", ROLE, POD, own_ip=POD)
CLIENT, STRANGER = App(3, "", ROLE, NODE), App(4, "", Class(), NODE)
BASE = Snapshot(
    "host",
    NODE,
    apps=(SERVER, CLIENT, STRANGER),
    services=(Service(1, Protocol.TCP, 80, 80),),
    dns_ip=DNS,
    dns_port=5300,
    local_ips=frozenset({NODE}),
)


def at(to: IPv4Address | str, port: int, client: App = CLIENT, snapshot: Snapshot = BASE) -> Verdict:
    return decide(snapshot, client, Destination(IPv4Address(to), port))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "127.1.2.3", "169.254.169.254"])
def test_a_pods_own(address: str) -> None:
    assert at(address, 80, SERVER).kind is Kind.DIRECT
    assert at(address, 80, CLIENT).kind is Kind.REFUSE


def test_the_built_in_dns_is_out_of_a_pods_reach() -> None:
    assert (at(DNS, 53, SERVER).kind, at(DNS, 53, SERVER).error) == (Kind.REFUSE, ECONNREFUSED)
    assert at(DNS, 53, CLIENT).kind is Kind.BALANCE


@pytest.mark.parametrize("address", [ONE, POD])
def test_both_addresses_stand_for_it(address: IPv4Address) -> None:
    assert [c.app for c in at(address, 80).picks] == [1]
    assert at(address, 80, STRANGER).error == EACCES


def test_what_nobody_known_serves() -> None:
    """At the pod's own address it may be a container that the mesh does not know."""
    assert at(ONE, 81).error == ECONNREFUSED
    assert at(POD, 81).kind is Kind.DIRECT


def test_a_real_port_is_the_pods_own_networks() -> None:
    assert at(NODE, 80).kind is Kind.DIRECT


def test_two_containers_of_one_pod() -> None:
    both = replace(
        BASE,
        apps=(*BASE.apps, SIBLING),
        services=(*BASE.services, Service(2, Protocol.TCP, 81, 81)),
    )
    assert [c.app for c in at(POD, 80, snapshot=both).picks] == [1]
    assert [c.app for c in at(POD, 81, snapshot=both).picks] == [2]


def test_an_index_that_changes_forgets_it() -> None:
    index = Index.of(BASE)
    index.remove_service(BASE.services[0])
    index.remove_app(SERVER)
    for address in (ONE, POD):
        assert not index.has_address(address)
        assert decide(index, CLIENT, Destination(address, 80)).kind is Kind.DIRECT


def test_the_same_port_in_two_pods() -> None:
    """A real port of the node is one service's; of pods each has all."""
    registry = Registry("host", NODE, local_ips=frozenset({NODE}))
    for app in (SERVER, App(5, "", ROLE, IPv4Address("3.3.3.3"), own_ip=IPv4Address("10.1.0.6")), CLIENT):
        registry.add_app(app)
    for app_id in (1, 5, 3):
        assert registry.listener_up(Service(app_id, Protocol.TCP, 80, 80))
    assert len(registry.snapshot.services) == 3
