"""What the registry takes, what it refuses and how it says so, and that a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from errno import ECONNREFUSED
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, changes

from appswitch.agent.numbers import LAST, Numbers
from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.agent.vips import candidates
from appswitch.errors import AppSwitchError, Conflict, Exhausted, NotFound, UsageError
from appswitch.interceptor.decision import Kind, decide
from appswitch.interceptor.tables import Sizes
from appswitch.model import (
    App,
    Backend,
    BindScope,
    Class,
    Destination,
    Labels,
    Mesh,
    PortMap,
    Protocol,
    Service,
    VService,
)

NODE, DNS = IPv4Address("10.0.2.15"), IPv4Address("241.255.255.53")
ONE, TWO = IPv4Address("1.1.1.1"), IPv4Address("2.2.2.2")
PROD = Class(Labels(frozenset({("role", "prod")})))
TEST = Class(Labels(frozenset({("role", "test")})))


def registry() -> Registry:
    return Registry("host", NODE, local_ips=frozenset({NODE}), dns_ip=DNS, dns_port=5300)


def app(app_id: int, ip: IPv4Address = ONE, app_class: Class = PROD, name: str = "") -> App:
    return App(app_id, f"uid-{app_id}", app_class, ip, name)


def vservice(name: str = "svc", address: str = "7.7.7.7", *ports: int, **more: object) -> VService:
    maps = tuple(PortMap(port, port) for port in ports or (80,))
    made = VService(name, (IPv4Address(address),), maps, (Backend(ONE),))
    return replace(made, **more)  # type: ignore[arg-type]


def service(app_id: int, port: int = 80, real: int = 40000, scope: BindScope = BindScope.ANY) -> Service:
    return Service(app_id, Protocol.TCP, port, real, scope)


# --- snapshot


def test_snapshot_is_cached_and_frozen() -> None:
    state = registry()
    first = state.snapshot
    assert state.snapshot is first
    state.add_app(app(1))
    assert state.snapshot is not first and first.apps == ()
    assert state.snapshot.apps == (app(1),)
    assert (state.snapshot.dns_ip, state.snapshot.dns_port) == (DNS, 5300)
    state.set_dns(None, 0)
    assert state.snapshot.dns_ip is None


@settings(max_examples=50, deadline=None)
@given(st.lists(changes, max_size=20))
def test_snapshot_says_what_the_index_says(steps: list[tuple[str, object]]) -> None:
    world = World.settled()
    for step in steps:
        world.do(step)
    snapshot = world.registry.snapshot
    assert {app.id: app for app in snapshot.apps} == world.registry.index.apps
    assert {s.app for s in snapshot.services} <= world.registry.index.apps.keys()
    assert len({v.name for v in snapshot.vservices}) == len(snapshot.vservices)
    alive = {c for c in world.registry.classes if c is not None}
    assert alive == {replace(app.app_class, address=None) for app in snapshot.apps}
    peers = {app.app_class for app in snapshot.apps if app.app_class.address is not None}
    assert {c for c in world.registry.peers if c is not None} == peers


# --- classes


def test_class_indexes_stay_and_are_used_again() -> None:
    state = registry()
    for app_id, app_class in ((1, PROD), (2, TEST), (3, PROD)):
        state.add_app(app(app_id, app_class=app_class))
    assert (state.class_index(PROD), state.class_index(TEST)) == (0, 1)
    state.remove_app(1)
    assert state.class_index(PROD) == 0
    state.remove_app(3)
    assert state.classes == (None, TEST)
    with pytest.raises(NotFound):
        state.class_index(PROD)
    state.add_app(app(4, app_class=Class()))
    assert state.classes == (Class(), TEST)
    state.remove_app(2)
    assert state.classes == (Class(),)


def test_class_index_of_a_former_daemon() -> None:
    state = registry()
    state.add_app(app(1, app_class=TEST), class_index=5)
    assert state.class_index(TEST) == 5
    state.add_app(app(2, app_class=PROD))
    assert state.class_index(PROD) == 0
    for wrong in (app(3, app_class=TEST), app(3, app_class=Class())):
        with pytest.raises(Conflict, match="class index 0 of app 00000003 is another class's"):
            state.add_app(wrong, class_index=0)
    assert len(state.snapshot.apps) == 2


def test_peers_are_classes_with_addresses() -> None:
    state = Registry("host", NODE, by_address=True)
    classes = [state.add_app(app(*each)).app_class for each in ((1, ONE), (2, TWO), (3, ONE), (4, TWO, TEST))]
    words = [state.class_index(each) for each in classes]
    assert words == [0x10000, 0x20000, 0x10000, 0x30001]
    assert state.classes == (PROD, TEST)
    assert state.peers == (None, *(classes[i] for i in (0, 1, 3)))
    again = Registry("host", NODE)  # whatever this daemon asks of new ones
    assert again.add_app(app(4, TWO, classes[3]), words[3]).app_class == classes[3]
    assert again.class_index(classes[3]) == words[3]
    assert again.add_app(app(5, TWO, TEST)).app_class == TEST and again.class_index(TEST) == 1
    for number in (1, 2, 3, 4):
        state.remove_app(number)
    assert (state.classes, state.peers) == ((), (None,))


def test_peer_of_a_former_daemon() -> None:
    """A word without one is a class's whose address is not known; a peer is one address's."""
    state = Registry("host", NODE, by_address=True)
    known = replace(PROD, address=ONE)
    assert state.add_app(app(1, app_class=known), class_index=5).app_class == PROD
    assert state.class_index(PROD) == 5
    state.add_app(app(2, app_class=known), class_index=0x70005)
    for wrong in (replace(PROD, address=TWO), PROD):
        with pytest.raises(Conflict, match="class index 458757 of app 00000003 is another class's"):
            state.add_app(app(3, app_class=wrong), class_index=0x70005)
    assert len(state.snapshot.apps) == 2


def test_more_classes_than_the_kernel_can_tell_apart() -> None:
    numbers: Numbers[int] = Numbers("labels", 1)
    for value in range(LAST):
        numbers.join(value)
    before = numbers.values
    with pytest.raises(Exhausted, match="more than 65535 labels"):
        numbers.join(LAST)
    assert numbers.values == before
    numbers.leave(7)
    numbers.join(LAST)
    assert numbers.number(LAST) == 8


# --- apps


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (app(0), UsageError, "not in 1"),
        (app(1 << 32), UsageError, "not in 1"),
        (app(1), Conflict, "app id 00000001 is taken"),
        (app(2, DNS), Conflict, "241.255.255.53 is the built-in DNS server's; choose another --ip"),
        (app(2, IPv4Address("127.0.0.5")), UsageError, "loopback is private to each app; choose another"),
        (app(2, IPv4Address("169.254.1.1")), UsageError, "link-local"),
        (app(2, IPv4Address("224.0.0.1")), UsageError, "no address of one party"),
        (app(2, IPv4Address("0.0.0.0")), UsageError, "no address of one party"),
        (app(2, IPv4Address("255.255.255.255")), UsageError, "no address of one party"),
    ],
)
def test_wrong_apps(wrong: App, error: type[AppSwitchError], words: str) -> None:
    state = registry()
    state.add_app(app(1))
    before = state.snapshot
    with pytest.raises(error, match=words):
        state.add_app(wrong)
    assert state.snapshot is before and state.classes == (PROD,)


def test_update_app() -> None:
    state = registry()
    state.add_app(app(1))
    state.update_app(replace(app(1), pid=77))
    assert state.app(1).pid == 77 and state.snapshot.apps[0].pid == 77
    with pytest.raises(UsageError, match="class and address cannot change"):
        state.update_app(app(1, TWO))
    with pytest.raises(NotFound, match="no app 00000002"):
        state.update_app(app(2))


def test_services_end_with_their_app() -> None:
    state = registry()
    state.add_app(app(1))
    assert state.listener_up(service(1))
    assert not state.listener_up(service(1))
    assert not state.listener_up(service(2))
    state.remove_app(1)
    assert state.snapshot.services == ()
    assert not state.listener_down(service(1))
    with pytest.raises(NotFound):
        state.remove_app(1)


def test_a_listener_is_known_by_its_ports() -> None:
    state = registry()
    state.add_app(app(1))
    state.listener_up(service(1))
    # as events have it: another socket was the last, bound otherwise
    assert state.listener_down(replace(service(1, scope=BindScope.VIRTUAL), cookie=9))
    assert state.snapshot.services == ()


def test_a_listener_may_change_its_scope() -> None:
    state = registry()
    state.add_app(app(1))
    state.listener_up(service(1, scope=BindScope.LOOPBACK))
    assert not state.index.listens(1, 80, 6)
    assert state.listener_up(service(1))
    assert state.index.listens(1, 80, 6)
    assert state.snapshot.services == (service(1),)


def test_resync() -> None:
    state = registry()
    state.add_app(app(1))
    state.listener_up(service(1, 80))
    state.listener_up(service(1, 81, 40001))
    came, went = state.resync([service(1, 81, 40001), service(1, 82, 40002), service(5)])
    assert (came, went) == ([service(1, 82, 40002)], [service(1, 80)])
    assert state.snapshot.services == (service(1, 81, 40001), service(1, 82, 40002))
    assert state.resync(state.snapshot.services) == ([], [])


# --- vservices


def test_vservice_comes_and_goes() -> None:
    state = registry()
    made = state.create_vservice(vservice())
    assert state.snapshot.vservices == (made,)
    assert state.delete_vservice("svc") == made
    assert state.snapshot.vservices == ()
    with pytest.raises(NotFound, match="no vservice 'svc'"):
        state.delete_vservice("svc")


def test_vservice_without_address_gets_its_names() -> None:
    state = registry()
    made = state.create_vservice(vservice(addresses=()))
    assert made.addresses == (registry().vip("svc"),)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (vservice(), Conflict, "vservice 'svc' exists already"),
        (vservice("b"), Conflict, "vservice 'b': 7.7.7.7:80 is taken by vservice 'svc'; choose another --ip"),
        (vservice("b", "7.7.7.7", 81, 80), Conflict, "7.7.7.7:80 is taken"),
        (vservice("b", backends=()), UsageError, "'b' has no backends; give at least one by --backends"),
        (vservice("b", ports=()), UsageError, "'b' has no ports"),
        (vservice("b", "8.8.8.8", 80, 80), UsageError, r"a port is given twice in \[80, 80\]"),
        (vservice("b", "8.8.8.8", 0), UsageError, r"port 0 is not in 1\.\.65535"),
        (vservice("b", ports=(PortMap(80, 70000),)), UsageError, "target port 70000 is not in"),
        (vservice("b", ports=(PortMap(80, 0),)), UsageError, "target port 0 is not in"),
        (vservice("b", backends=(Backend(TWO, 65536),)), UsageError, "port 65536 of backend 2.2.2.2"),
        (vservice("b", backends=(Backend(TWO, 0, -1),)), UsageError, "weight -1 of backend 2.2.2.2"),
        (vservice("b", backends=(Backend(TWO),) * 4097), UsageError, "4097 backends; the most is 4096"),
        (vservice(""), UsageError, "must be a word"),
        (vservice("a/b"), UsageError, "must be a word"),
        (vservice("a\nb"), UsageError, "must be a word"),
        (vservice("b", "127.0.0.1"), UsageError, "vservice 'b': 127.0.0.1 cannot be used"),
        (vservice("b", str(DNS)), Conflict, "DNS server's"),
    ],
)
def test_wrong_vservices(wrong: VService, error: type[AppSwitchError], words: str) -> None:
    state = registry()
    state.create_vservice(vservice())
    before = state.snapshot
    state.index.touched.clear()
    with pytest.raises(error, match=words):
        state.create_vservice(wrong)
    assert state.snapshot is before and not state.index.touched


def test_one_address_may_have_several_vservices() -> None:
    state = registry()
    for i, port in enumerate((80, 81)):
        state.create_vservice(vservice(f"s{i}", "7.7.7.7", port))
    state.create_vservice(vservice("udp", protocol=Protocol.UDP))
    assert len(state.snapshot.vservices) == 3


def test_istio_is_replaced_whole() -> None:
    state = registry()
    mine = state.create_vservice(vservice("mine"))
    pushed = [vservice("a", "8.8.8.1"), vservice("b", "8.8.8.2"), vservice("mine", "8.8.8.3")]
    names = (("a.ns", (ONE,)),)
    assert state.replace_istio(Mesh(tuple(pushed), names)) == ("mine",)
    assert {(v.name, v.origin) for v in state.snapshot.vservices} == {
        ("mine", "user"),
        ("a", "istio"),
        ("b", "istio"),
    }
    assert state.snapshot.names == names
    state.index.touched.clear()
    changed = [pushed[0], replace(pushed[1], backends=(Backend(TWO),))]
    assert state.replace_istio(Mesh(tuple(changed), names)) == ()
    assert {key.address for key in state.index.touched} == {int(IPv4Address("8.8.8.2"))}
    with pytest.raises(Conflict, match="'a' comes from istio: it goes when it is deleted there"):
        state.delete_vservice("a")
    with pytest.raises(Conflict, match="taken by vservice 'a'"):
        state.create_vservice(vservice("c", "8.8.8.1"))
    state.replace_istio(Mesh())
    assert state.snapshot.vservices == (mine,) and state.snapshot.names == ()


def test_numbers_of_istios_that_fit_nowhere() -> None:
    state = registry()
    wrong = [vservice("p", "8.8.8.1", 70000), vservice("w", backends=(Backend(ONE, 0, 1 << 32),))]
    assert state.replace_istio(Mesh((*wrong, vservice("ok", "8.8.8.2")))) == ("p", "w")
    assert [v.name for v in state.snapshot.vservices] == ["ok"]


# --- addresses of names


def test_vip_is_the_names_wherever_it_is_asked() -> None:
    assert registry().vip("web") == registry().vip("web") == registry().vip("WEB")
    assert registry().vip("web") != registry().vip("db")
    assert registry().vip("web") in IPv4Network("241.0.0.0/8")


def test_vip_evades_others_and_keeps_to_its_own() -> None:
    state = registry()
    first = state.vip("web")
    state.add_app(app(1, first, name="other"))
    second = state.vip("web")
    assert second != first
    state.add_app(app(2, second, name="web"))
    state.remove_app(1)
    assert state.vip("web") == second
    state.create_vservice(vservice("db", addresses=()))
    assert state.vip("db") == state.snapshot.vservices[0].addresses[0]


def test_an_address_given_is_not_the_names_vip() -> None:
    state = registry()
    state.add_app(app(1, ONE, name="web"))
    assert state.vip("web") in IPv4Network("241.0.0.0/8")


def test_vip_range_full() -> None:
    state = Registry("host", NODE, vip_range=IPv4Network("241.0.0.0/30"))
    for app_id in (1, 2):
        ip = state.vip(f"n{app_id}")
        state.add_app(app(app_id, ip, name=f"n{app_id}"))
    with pytest.raises(Conflict, match=r"no virtual address is free in 241\.0\.0\.0/30 for 'n3'"):
        state.vip("n3")


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=20), st.integers(8, 30))
def test_candidates_are_in_the_range(name: str, prefix: int) -> None:
    network = IPv4Network((0xF1000000, prefix))
    for _, address in zip(range(50), candidates(name, network), strict=False):
        assert address in network
        assert address not in (network.network_address, network.broadcast_address)
        assert prefix > 21 or int(address) & 0xFFFFFF00 != int(network.broadcast_address) & 0xFFFFFF00


# --- planner


def test_planner_retries_what_did_not_fit() -> None:
    state = registry()
    planner = Planner(state, Sizes(backends=1024))
    for app_id in (1, 2):
        state.add_app(app(app_id, TWO))
    planner.plan(0.0)
    rows = planner.rows()
    backends = tuple(Backend(IPv4Address(0x0B000000 + i)) for i in range(64))
    for i in range(16):
        state.create_vservice(vservice(f"v{i}", f"8.8.{i // 250}.{i % 250}", backends=backends))
    with pytest.raises(Exhausted, match="'backends' is full"):
        planner.plan(1.0)
    with pytest.raises(Exhausted):
        planner.plan(1.5)
    assert planner.rows() == rows
    state.delete_vservice("v15")
    assert planner.plan(2.0)
    assert len(planner.rows()) == len(rows) + 15 * 3
    assert planner.plan(2.0) == []


def test_planner_says_when_it_has_work() -> None:
    state = registry()
    planner = Planner(state)
    state.add_app(app(1))
    planner.plan(0.0)
    assert planner.due() is None
    state.remove_app(1)
    planner.plan(5.0)
    assert planner.due() == 6.0
    assert [type(command).__name__ for command in planner.plan(6.0)] == ["DeleteKey", "DeleteKey"]
    assert planner.due() == 7.0
    assert planner.plan(7.0) == []
    assert planner.due() is None


def test_a_real_port_is_one_services() -> None:
    """The kernel gives a port anew before the event of its former owner's end has arrived."""
    registry = Registry("host", IPv4Address("10.0.2.15"))
    for number in (1, 2):
        registry.add_app(App(number, f"uid-{number}", Class(), IPv4Address(f"1.1.1.{number}")))
    old, new = Service(1, Protocol.TCP, 40040, 40040), Service(2, Protocol.TCP, 80, 40040)
    assert registry.listener_up(old) and registry.listener_up(new)
    assert registry.snapshot.services == (new,)
    assert not registry.listener_down(old) and registry.snapshot.services == (new,)


def test_istio_leads_nobody_to_the_nodes_loopback() -> None:
    """Whoever may write a ServiceEntry is no user of the node: not to its loopback, nor to its metadata."""
    state = Registry("host0", IPv4Address("10.0.2.15"))
    inside = ("127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0", "0.1.2.3")
    backends = tuple(Backend(IPv4Address(ip), 6664) for ip in (*inside, "9.9.9.9"))
    pushed = replace(vservice("x", "8.8.8.1"), backends=backends, origin="istio")
    assert state.replace_istio(Mesh((pushed,))) == ()
    (found,) = state.snapshot.vservices
    assert found.backends == (Backend(IPv4Address("9.9.9.9"), 6664),)
    state.replace_istio(Mesh((replace(pushed, backends=backends[:1]),)))
    (found,) = state.snapshot.vservices
    assert not found.backends
    verdict = decide(state.snapshot, Class(), Destination(IPv4Address("8.8.8.1"), 80, Protocol.TCP))
    assert (verdict.kind, verdict.error) == (Kind.REFUSE, ECONNREFUSED)
