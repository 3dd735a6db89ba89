"""What an app gets for a destination, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from errno import EACCES, ECONNREFUSED, ENETUNREACH
from ipaddress import IPv4Address, IPv4Network

import pytest

from appswitch.interceptor.decision import Kind, Verdict, decide, error_name, route
from appswitch.interceptor.index import Index, Key, Rule
from appswitch.model import (
    DEFAULT_LABELS,
    App,
    Backend,
    BindScope,
    Class,
    Destination,
    Labels,
    LbPolicy,
    Outbound,
    PortMap,
    Protocol,
    Service,
    Snapshot,
    VService,
)
from appswitch.policy import (
    ALWAYS,
    AccessFilter,
    AccessRule,
    Action,
    Condition,
    ConditionKind,
    InboundPolicy,
    PortAccess,
)

NODE = IPv4Address("10.0.2.15")
ONE, TWO, VIP, FAR = map(IPv4Address, ("1.1.1.1", "2.2.2.2", "241.7.7.7", "93.184.216.34"))
DNS = IPv4Address("241.255.255.53")


def labels(text: str) -> Labels:
    return Labels(
        frozenset((key, value) for key, _, value in (pair.partition("=") for pair in text.split(",")))
    )


def app(app_id: int, ip: IPv4Address, text: str = "zone=default") -> App:
    return App(app_id, f"uid-{app_id}", Class(labels(text)), ip)


def listens(
    app_id: int, port: int, scope: BindScope = BindScope.ANY, protocol: Protocol = Protocol.TCP
) -> Service:
    return Service(app_id, protocol, port, 40000 + app_id * 100 + port % 100, scope)


CLIENT = app(9, NODE)
PROD, TEST, DEFAULT = app(1, ONE, "role=prod"), app(2, ONE, "role=test"), app(3, TWO)
UNNAMED = app(4, NODE)
BASE = Snapshot(
    "host",
    NODE,
    apps=(PROD, TEST, DEFAULT, UNNAMED, CLIENT),
    services=(listens(1, 80), listens(2, 80), listens(3, 80), listens(4, 80)),
    dns_ip=DNS,
    dns_port=5300,
    local_ips=frozenset({NODE}),
)


def at(
    to: IPv4Address | str,
    port: int = 80,
    client: App | Class = CLIENT,
    snapshot: Snapshot = BASE,
    protocol: Protocol = Protocol.TCP,
) -> Verdict:
    return decide(snapshot, client, Destination(IPv4Address(to), port, protocol))


def picks(verdict: Verdict) -> list[tuple[int | str, int, int]]:
    return [(c.app or str(c.address), c.port, c.weight) for c in verdict.picks]


def refused(verdict: Verdict) -> tuple[str, int]:
    assert (verdict.kind is Kind.REFUSE and not verdict.picks) or verdict.error
    return error_name(verdict.error), verdict.error


def vservice(*backends: Backend, ports: tuple[PortMap, ...] = (PortMap(80, 80),), **more: object) -> VService:
    return VService("svc", (VIP,), ports, backends, **more)  # type: ignore[arg-type]


def with_vservice(*backends: Backend, **more: object) -> Snapshot:
    return replace(BASE, vservices=(vservice(*backends, **more),))  # type: ignore[arg-type]


# --- loopback


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "0.0.0.0"])
@pytest.mark.parametrize(
    ("scope", "reached"), [(BindScope.ANY, True), (BindScope.LOOPBACK, True), (BindScope.VIRTUAL, False)]
)
def test_loopback_reaches_ones_own(address: str, scope: BindScope, reached: bool) -> None:
    snapshot = replace(BASE, services=(listens(9, 80, scope),))
    verdict = at(address, snapshot=snapshot)
    assert verdict.rule is Rule.LOOPBACK
    assert picks(verdict) == ([(9, 80, 1)] if reached else [])
    assert reached or refused(verdict) == ("ECONNREFUSED", ECONNREFUSED)


def test_loopback_is_nobody_elses() -> None:
    snapshot = replace(BASE, services=(listens(4, 80, BindScope.LOOPBACK),))
    assert refused(at("127.0.0.1", snapshot=snapshot))[0] == "ECONNREFUSED"
    assert refused(at("127.0.0.1", client=CLIENT.app_class, snapshot=snapshot))[0] == "ECONNREFUSED"
    # nor the host's by the node's address: what listens on loopback is not there
    assert at(NODE, snapshot=snapshot).kind is Kind.DIRECT


def test_link_local_is_refused() -> None:
    verdict = at("169.254.169.254")
    assert (verdict.rule, refused(verdict)) == (Rule.LINK_LOCAL, ("EACCES", EACCES))


# --- apps


def test_labels_choose_among_apps_of_one_address() -> None:
    assert picks(at(ONE, client=Class(labels("role=prod")))) == [(1, 80, 1)]
    assert picks(at(ONE, client=Class(labels("role=test,role=prod")))) == [(1, 80, 1), (2, 80, 1)]
    verdict = at(ONE)
    assert refused(verdict)[0] == "EACCES"
    assert verdict.why == "no app behind 1.1.1.1:80 shares a label with zone=default"


def test_labels_may_hold_anything() -> None:
    odd = Labels(frozenset({("ключ \n/*", "\x00'\"; --")}))
    snapshot = replace(BASE, apps=(replace(PROD, app_class=Class(odd)), CLIENT), services=(listens(1, 80),))
    assert picks(at(ONE, client=Class(odd), snapshot=snapshot)) == [(1, 80, 1)]
    assert refused(at(ONE, snapshot=snapshot))[0] == "EACCES"


def test_apps_without_labels_reach_nobody() -> None:
    assert refused(at(TWO, client=Class(Labels(frozenset()))))[0] == "EACCES"


def test_identity_does_not_count_for_sharing() -> None:
    assert picks(at(TWO, client=Class(namespace="a", service_account="b"))) == [(3, 80, 1)]


def test_nobody_listens() -> None:
    verdict = at(TWO, 81)
    assert refused(verdict)[0] == "ECONNREFUSED"
    assert verdict.why == "nobody behind 2.2.2.2 listens on port 81"


def test_policy_speaks_before_who_listens() -> None:
    assert refused(at(TWO, 81, Class(labels("role=prod"))))[0] == "EACCES"


def test_of_several_only_those_that_listen() -> None:
    both = Class(labels("role=prod,role=test"))
    snapshot = replace(BASE, services=(listens(1, 80),))
    assert picks(at(ONE, client=both, snapshot=snapshot)) == [(1, 80, 1)]
    # a port that only the other group serves is refused by policy, not by absence
    assert refused(at(ONE, client=Class(labels("role=test")), snapshot=snapshot))[0] == "EACCES"


def test_udp_and_tcp_are_apart() -> None:
    assert refused(at(TWO, protocol=Protocol.UDP))[0] == "ECONNREFUSED"
    snapshot = replace(BASE, services=(listens(3, 80, protocol=Protocol.UDP),))
    assert picks(at(TWO, protocol=Protocol.UDP, snapshot=snapshot)) == [(3, 80, 1)]


# --- the node's own address


def test_unnamed_apps_by_the_nodes_address() -> None:
    assert picks(at(NODE)) == [(4, 80, 1)]
    assert refused(at(NODE, client=PROD))[0] == "EACCES"


def test_the_hosts_own_programs_stay_reachable() -> None:
    verdict = at(NODE, 22)
    assert verdict.kind is Kind.DIRECT and "the node's own program" in verdict.why
    assert at(NODE, 22, PROD).kind is Kind.DIRECT


def test_a_real_port_counts_as_its_service() -> None:
    verdict = at(NODE, 40380)
    assert picks(verdict) == [(3, 80, 1)]
    assert verdict.why.startswith("10.0.2.15:40380 is the real port of 2.2.2.2:80: ")
    assert refused(at(NODE, 40180))[0] == "EACCES"
    assert at(FAR, 40380).kind is Kind.DIRECT


def test_the_nodes_rest_is_refused() -> None:
    verdict = at(NODE, 6664)
    assert (verdict.rule, refused(verdict)[0]) == (Rule.REST, "EACCES")
    assert at(NODE, 6664, protocol=Protocol.UDP).kind is Kind.DIRECT


def test_dns() -> None:
    for protocol in Protocol:
        assert picks(at(DNS, 53, protocol=protocol)) == [("127.0.0.1", 5300, 1)]
    assert at(DNS, 53, snapshot=replace(BASE, dns_ip=None)).rule is Rule.OUTSIDE


def test_outside_is_direct() -> None:
    verdict = at(FAR, 443)
    assert (verdict.kind, verdict.rule, verdict.error) == (Kind.DIRECT, Rule.OUTSIDE, 0)


# --- vservices


def test_vservice_before_apps_and_outside() -> None:
    snapshot = with_vservice(Backend(TWO, weight=3), Backend(FAR, 8080), policy=LbPolicy.ROUND_ROBIN)
    verdict = at(VIP, snapshot=snapshot)
    assert (verdict.rule, verdict.service, verdict.policy) == (Rule.VSERVICE, "svc", LbPolicy.ROUND_ROBIN)
    assert picks(verdict) == [(3, 80, 3), ("93.184.216.34", 8080, 1)]
    assert verdict.why == "vservice svc: 2 of 2 may be reached, RoundRobin"


def test_vservice_ports() -> None:
    snapshot = with_vservice(Backend(TWO), ports=(PortMap(8000, 80), PortMap(8001, 81)))
    assert picks(at(VIP, 8000, snapshot=snapshot)) == [(3, 80, 1)]
    assert refused(at(VIP, 8001, snapshot=snapshot))[0] == "ECONNREFUSED"
    assert refused(at(VIP, 80, snapshot=snapshot)) == ("ECONNREFUSED", ECONNREFUSED)


def test_vservice_holds_labels() -> None:
    snapshot = with_vservice(Backend(ONE), Backend(TWO))
    assert picks(at(VIP, client=DEFAULT, snapshot=snapshot)) == [(3, 80, 1)]
    assert refused(at(VIP, client=Class(labels("a=b")), snapshot=snapshot))[0] == "EACCES"


def test_apps_of_one_address_share_its_weight() -> None:
    snapshot = with_vservice(Backend(ONE, weight=1), Backend(TWO, weight=1))
    every = Class(labels("role=prod,role=test,zone=default"))
    assert picks(at(VIP, client=every, snapshot=snapshot)) == [(1, 80, 1), (2, 80, 1), (3, 80, 2)]
    some = Class(labels("role=test,zone=default"))
    assert picks(at(VIP, client=some, snapshot=snapshot)) == [(2, 80, 1), (3, 80, 1)]


def test_weight_zero_gets_nothing() -> None:
    snapshot = with_vservice(Backend(TWO, weight=0), Backend(FAR))
    assert picks(at(VIP, snapshot=snapshot)) == [("93.184.216.34", 80, 1)]
    snapshot = with_vservice(Backend(TWO, weight=0))
    assert refused(at(VIP, snapshot=snapshot))[0] == "ECONNREFUSED"


def test_vservice_without_backends_is_refused() -> None:
    verdict = at(VIP, snapshot=with_vservice(origin="istio"))
    assert refused(verdict)[0] == "ECONNREFUSED" and verdict.why == "svc has no backend"


def test_dead_backends_are_left_out() -> None:
    snapshot = replace(with_vservice(Backend(TWO), Backend(ONE)), services=(listens(1, 80),))
    both = Class(labels("role=prod,zone=default"))
    assert picks(at(VIP, client=both, snapshot=snapshot)) == [(1, 80, 1)]
    verdict = at(VIP, snapshot=snapshot)
    assert refused(verdict)[0] == "ECONNREFUSED"
    assert [(c.eligible, c.live) for c in verdict.candidates] == [(True, False), (False, True)]


def test_a_backend_at_the_node() -> None:
    assert picks(at(VIP, snapshot=with_vservice(Backend(NODE)))) == [(4, 80, 1)]
    assert picks(at(VIP, snapshot=with_vservice(Backend(NODE, 5432)))) == [("10.0.2.15", 5432, 1)]
    # a real port there is the app behind it: a vservice is no way round labels
    assert refused(at(VIP, snapshot=with_vservice(Backend(NODE, 40180))))[0] == "EACCES"


def test_vservice_on_an_apps_address_wins_and_falls_back() -> None:
    own = replace(vservice(Backend(FAR)), addresses=(TWO,), ports=(PortMap(80, 8080),))
    snapshot = replace(BASE, vservices=(own,))
    assert picks(at(TWO, snapshot=snapshot)) == [("93.184.216.34", 8080, 1)]
    dead = replace(own, backends=(Backend(TWO, 99),))
    assert picks(at(TWO, snapshot=replace(BASE, vservices=(dead,)))) == [(3, 80, 1)]


def test_users_vservice_goes_before_istios() -> None:
    pushed = replace(vservice(Backend(FAR)), name="a.pushed", origin="istio")
    snapshot = replace(BASE, vservices=(pushed, vservice(Backend(TWO))))
    assert at(VIP, snapshot=snapshot).service == "svc"


def test_other_ports_of_istios_addresses_pass_through() -> None:
    assert at(VIP, 81, snapshot=with_vservice(Backend(TWO), origin="istio")).kind is Kind.DIRECT


def test_route_knows_nothing_of_listeners() -> None:
    index = Index.of(replace(BASE, services=()))
    verdict = route(index, CLIENT.app_class, Key(int(TWO), 0, 6))
    assert verdict is not None and verdict.kind is Kind.BALANCE and verdict.error == ECONNREFUSED
    assert route(index, CLIENT.app_class, Key(int(FAR), 80, 6)) is None


def test_source_ip() -> None:
    assert at(VIP, snapshot=with_vservice(Backend(FAR), source_ip=NODE)).source_ip == NODE


# --- nameservers of apps that cannot be shown our resolv.conf


OWN = tuple(map(IPv4Address, ("127.0.0.53", "169.254.169.253", "93.184.216.34", "10.0.2.15")))
ASKS = App(8, "uid-8", Class(asks_nameservers=True), NODE, nameservers=OWN)


@pytest.mark.parametrize("address", OWN)
@pytest.mark.parametrize("protocol", Protocol)
def test_a_nameserver_is_answered_for(address: IPv4Address, protocol: Protocol) -> None:
    snapshot = replace(BASE, apps=(*BASE.apps, ASKS))
    verdict = at(address, 53, ASKS, snapshot, protocol)
    assert (verdict.rule, picks(verdict)) == (Rule.DNS, [("127.0.0.1", 5300, 1)])
    # on port 53 alone, for who asks there, and while there is a DNS server
    natively = at(address, 54, CLIENT, BASE, protocol)
    for other in (
        at(address, 54, ASKS, snapshot, protocol),
        at(address, 53, CLIENT, snapshot, protocol),
        at(address, 53, ASKS, replace(snapshot, dns_port=0), protocol),
        at(address, 53, ASKS, BASE, protocol),
    ):
        assert (other.kind, other.error, picks(other)) == (natively.kind, natively.error, [])


def test_what_is_known_goes_before_nameservers() -> None:
    """An app or a vservice at that address, and the app's own server on loopback."""
    asks = replace(ASKS, nameservers=(TWO, VIP, IPv4Address("127.0.0.1")))
    snapshot = replace(with_vservice(Backend(TWO)), apps=(*BASE.apps, asks), services=(listens(3, 53),))
    assert picks(at(TWO, 53, asks, snapshot)) == [(3, 53, 1)]
    assert refused(at(VIP, 53, asks, snapshot))[0] == "ECONNREFUSED"
    own = replace(snapshot, services=(listens(8, 53, BindScope.LOOPBACK),))
    assert picks(at("127.0.0.1", 53, asks, own)) == [(8, 53, 1)]
    assert picks(at("0.0.0.0", 53, asks, snapshot)) == [("127.0.0.1", 5300, 1)]


def failing(*backends: Backend, policy: LbPolicy = LbPolicy.RANDOM) -> Snapshot:
    return replace(BASE, vservices=(VService("v", (VIP,), (PortMap(80, 80),), backends, policy),))


def picked(
    snapshot: Snapshot, ages: dict[tuple[int, int], float], protocol: Protocol = Protocol.TCP
) -> set[int]:
    verdict = decide(snapshot, CLIENT, Destination(VIP, 80, protocol), ages)
    return {pick.port for pick in verdict.picks}


def test_a_backend_that_failed_is_avoided_while_another_is_there() -> None:
    three = failing(Backend(FAR, 1), Backend(FAR, 2), Backend(TWO))
    assert picked(three, {}) == {1, 2, 80}
    assert picked(three, {(int(FAR), 1): 0.4}) == {2, 80}
    assert picked(three, {(int(FAR), 1): 0.4, (int(FAR), 2): 0.9}) == {80}
    assert picked(three, {(int(FAR), 1): 1.0, (int(FAR), 2): 0.9}) == {1, 80}  # the second is over
    assert picked(three, {(int(TWO), 80): 0.1}) == {1, 2, 80}  # an app: whether it listens is known
    silent = replace(three, services=())
    assert picked(silent, {(int(FAR), 1): 0.4}) == {2}


def test_where_all_failed_all_are_dialled() -> None:
    two = failing(Backend(FAR, 1), Backend(FAR, 2))
    ages = {(int(FAR), 1): 0.4, (int(FAR), 2): 0.1}
    assert picked(two, ages) == {1, 2}
    verdict = decide(two, CLIENT, Destination(VIP, 80), ages)
    assert [(c.failed, c.avoided) for c in verdict.candidates] == [(0.4, False), (0.1, False)]
    assert picked(failing(Backend(FAR, 1)), ages) == {1}
    spared = failing(Backend(FAR, 1), Backend(FAR, 2), Backend(FAR, 3, weight=0))
    assert picked(spared, ages) == {1, 2}  # one of weight 0 is nobody


def test_datagrams_know_no_failures() -> None:
    snapshot = failing(Backend(FAR, 1), Backend(FAR, 2))
    udp = replace(snapshot, vservices=(replace(snapshot.vservices[0], protocol=Protocol.UDP),))
    assert picked(udp, {(int(FAR), 1): 0.4}, Protocol.UDP) == {1, 2}


WAITING = replace(CLIENT, connect_wait=10.0)


@pytest.mark.parametrize(("to", "port"), [(ONE, 81), (TWO, 81), (VIP, 80), (VIP, 81)])
def test_what_is_known_and_not_up_is_waited_for(to: IPv4Address, port: int) -> None:
    client = replace(WAITING, app_class=PROD.app_class if to == ONE else WAITING.app_class)
    snapshot = with_vservice()
    verdict = at(to, port, client, snapshot)
    assert (verdict.kind, verdict.wait, verdict.error) == (Kind.WAIT, 10.0, ECONNREFUSED)
    plain = at(to, port, replace(client, connect_wait=0.0), snapshot)
    assert (plain.kind, plain.error, plain.why) == (Kind.REFUSE, ECONNREFUSED, verdict.why)


def test_what_is_not_waited_for() -> None:
    assert at(ONE, 80, WAITING).error == EACCES and at(ONE, 80, WAITING).kind is Kind.REFUSE
    assert at("127.0.0.1", 81, WAITING).kind is Kind.REFUSE
    assert at(NODE, 81, WAITING).kind is Kind.DIRECT
    assert at(FAR, 80, WAITING).kind is Kind.DIRECT
    assert at(TWO, 81, WAITING, protocol=Protocol.UDP).kind is Kind.REFUSE
    assert at(TWO, 81, WAITING.app_class).kind is Kind.REFUSE
    assert at(TWO, 80, WAITING).wait == 0.0
    assert at(TWO, 81, replace(WAITING, own_ip=IPv4Address("9.9.9.1"))).kind is Kind.REFUSE


def test_the_only_backend_outside_may_refuse_for_a_while() -> None:
    assert at(VIP, 80, WAITING, with_vservice(Backend(FAR))).wait == 10.0
    assert at(VIP, 80, WAITING, with_vservice(Backend(FAR), Backend(FAR, 81))).wait == 0.0


# --- policies


def guarded(address: IPv4Address, action: Action, condition: Condition) -> InboundPolicy:
    filters = (AccessFilter(action, (AccessRule("r", condition),)),)
    return InboundPolicy((address,), "cluster.local", (PortAccess(0, filters=filters),))


PORT_80 = Condition(ConditionKind.PORT, first=80, last=80)


def named(app_id: int, ip: IPv4Address, identity: str) -> App:
    namespace, _, account = identity.partition("/")
    return App(app_id, f"uid-{app_id}", Class(DEFAULT_LABELS, namespace, account, address=ip), ip)


def test_apps_at_the_nodes_address_are_not_one_another() -> None:
    server, client = named(1, NODE, "shop/orders"), named(2, NODE, "evil/x")
    policy = guarded(NODE, Action.DENY, ALWAYS)
    state = Snapshot("host", NODE, (server, client), (listens(1, 80),), local_ips=frozenset({NODE}))
    assert decide(state, client, Destination(NODE, 80)).kind is Kind.BALANCE
    assert decide(replace(state, policies=(policy,)), client, Destination(NODE, 80)).error == EACCES


def test_an_app_with_an_address_of_its_own_reaches_itself_and_no_neighbour_does() -> None:
    server, neighbour = named(1, ONE, "shop/orders"), named(2, ONE, "shop/other")
    state = Snapshot(
        "host", NODE, (server, neighbour), (listens(1, 80),), policies=(guarded(ONE, Action.DENY, ALWAYS),)
    )
    assert decide(state, server, Destination(ONE, 80)).kind is Kind.BALANCE
    assert decide(state, neighbour, Destination(ONE, 80)).error == EACCES


def test_a_vservice_at_a_guarded_port_opens_nothing() -> None:
    """Nobody is behind it, so who dials comes to the app: its policy of that port still holds."""
    server, client = named(1, ONE, ""), named(2, TWO, "")
    front = VService("v", (ONE,), (PortMap(80, 8080),), (Backend(ONE, 8080),))
    policy = guarded(ONE, Action.DENY, PORT_80)
    state = Snapshot("host", NODE, (server, client), (listens(1, 80), listens(1, 81)), policies=(policy,))
    assert decide(state, client, Destination(ONE, 80)).error == EACCES
    assert decide(state, client, Destination(ONE, 81)).kind is Kind.BALANCE
    assert decide(replace(state, vservices=(front,)), client, Destination(ONE, 80)).kind is not Kind.BALANCE


def test_what_refuses_other_ports_of_a_pod_says_nothing_of_this_one() -> None:
    """Its other container may listen there."""
    server, client = replace(named(1, ONE, ""), own_ip=ONE), named(2, TWO, "")
    state = Snapshot("host", NODE, (server, client), policies=(guarded(ONE, Action.ALLOW, PORT_80),))
    assert decide(state, client, Destination(ONE, 80)).kind is Kind.DIRECT
    assert decide(state, client, Destination(ONE, 81)).error == EACCES


def test_the_registry_only() -> None:
    far = IPv4Network("93.184.216.32/28")
    state = replace(BASE, outbound=Outbound(True, ((far, 443),)))
    refused = decide(state, CLIENT, Destination(FAR, 80))
    assert (refused.kind, refused.error) == (Kind.REFUSE, ENETUNREACH) and "REGISTRY_ONLY" in refused.why
    assert decide(state, CLIENT, Destination(FAR, 443)).kind is Kind.DIRECT
    assert decide(state, CLIENT, Destination(FAR, 80, Protocol.UDP)).kind is Kind.DIRECT
    assert decide(state, DEFAULT, Destination(TWO, 80)).kind is Kind.BALANCE
