"""Random registries and random changes to them, in a world small enough for things to meet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st
from kernel_model import KernelModel

from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.errors import Conflict
from appswitch.model import (
    App,
    Backend,
    BindScope,
    Class,
    Destination,
    Labels,
    LbPolicy,
    Mesh,
    Outbound,
    PortMap,
    Protocol,
    Service,
    VService,
)
from appswitch.policy import (
    AccessFilter,
    AccessRule,
    Action,
    Condition,
    ConditionKind,
    InboundPolicy,
    PortAccess,
)

NODE_IP = IPv4Address("10.0.2.15")
DNS_IP = IPv4Address("241.255.255.53")
ADDRESSES = tuple(map(IPv4Address, ("1.1.1.1", "2.2.2.2", "241.0.0.7", "10.0.2.15", "9.9.9.9")))
PORTS = (80, 81, 40001)
LABELS = tuple(
    Labels(frozenset(pairs))
    for pairs in (
        {("zone", "default")},
        {("role", "prod")},
        {("role", "test"), ("weird key", "ü= \n")},
        {("role", "prod"), ("role", "test")},
    )
)
OUTSIDE = IPv4Address("93.184.216.34")

_address = st.sampled_from(ADDRESSES)
_port = st.sampled_from(PORTS)
_protocol = st.sampled_from(Protocol)
_app_id = st.integers(1, 7)
NAMESERVERS = tuple(map(IPv4Address, ("127.0.0.53", "169.254.1.1", "10.0.2.15", "2.2.2.2", "93.184.216.34")))
_class = st.builds(
    Class,
    st.sampled_from(LABELS),
    st.sampled_from(("", "ns")),
    st.just("account"),
    asks_nameservers=st.booleans(),
)
_nameservers = st.lists(st.sampled_from(NAMESERVERS), max_size=2, unique=True).map(tuple)
_backend = st.builds(
    Backend, st.sampled_from((*ADDRESSES, OUTSIDE)), st.sampled_from((0, 0, *PORTS)), st.integers(0, 5)
)
vservices = st.builds(
    VService,
    st.sampled_from(("a", "b", "c")),
    st.lists(_address, min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.builds(PortMap, _port, _port), min_size=1, max_size=2, unique_by=lambda p: p.port).map(tuple),
    st.lists(_backend, min_size=1, max_size=4).map(tuple),
    st.sampled_from(LbPolicy),
    st.just(Protocol.TCP),
    st.sampled_from((None, NODE_IP)),
)
apps = st.builds(
    lambda i, c, ip, own, asked: App(
        i, f"uid-{i}", c, ip, own_ip=own, nameservers=asked if c.asks_nameservers and not own else ()
    ),
    _app_id,
    _class,
    _address,
    st.sampled_from((None, None, None, IPv4Address("1.1.1.1"), IPv4Address("9.9.9.9"))),
    _nameservers,
)
services = st.builds(
    lambda app, proto, port, real, scope: Service(app, proto, port, 40000 + app * 10 + real, scope),
    _app_id,
    _protocol,
    _port,
    st.integers(0, 1),
    st.sampled_from(BindScope),
)

OUTBOUND = (
    Outbound(),
    Outbound(True),
    Outbound(True, ((IPv4Network("93.184.216.32/30"), 80), (IPv4Network("1.1.1.1/32"), 80))),
)
"""All; the registry only; and it with a range outside and an address that may be an app's."""


def _policy(address: IPv4Address, action: Action, condition: Condition) -> InboundPolicy:
    rules = (AccessRule("rule", condition),)
    return InboundPolicy(
        (address,), "cluster.local", (PortAccess(0, filters=(AccessFilter(action, rules),)),)
    )


_NOT_NS = Condition(ConditionKind.NOT, (Condition(ConditionKind.PRINCIPAL, pattern=".*/ns/ns/.*"),))
POLICIES = (
    _policy(ADDRESSES[0], Action.ALLOW, Condition(ConditionKind.SOURCE, network=IPv4Network("1.1.1.0/24"))),
    _policy(
        ADDRESSES[3],
        Action.DENY,
        Condition(ConditionKind.ALL, (Condition(ConditionKind.PORT, first=80, last=80), _NOT_NS)),
    ),
    InboundPolicy((ADDRESSES[0],), "cluster.local", (PortAccess(0), PortAccess(80, plaintext=False))),
)
"""By source; a negated identity for one port of the node's own address; and one port alone with identity."""


changes = st.one_of(
    st.tuples(st.just("add_app"), apps),
    st.tuples(st.just("remove_app"), _app_id),
    st.tuples(st.just("listener_up"), services),
    st.tuples(st.just("listener_up"), services),
    st.tuples(st.just("listener_down"), services),
    st.tuples(st.just("create_vservice"), vservices),
    st.tuples(st.just("delete_vservice"), st.sampled_from(("a", "b", "c"))),
    st.tuples(st.just("replace_istio"), st.lists(vservices, max_size=3, unique_by=lambda v: v.name)),
    st.tuples(st.just("resync"), st.lists(services, max_size=4, unique_by=lambda s: s.real_port)),
    st.tuples(st.just("set_policies"), st.lists(st.sampled_from(POLICIES), max_size=2)),
    st.tuples(st.just("set_outbound"), st.sampled_from(OUTBOUND)),
    st.tuples(st.just("set_dns"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 0.6, 1.0, 5.0))),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("restart_by_address"), st.booleans()),
    st.tuples(st.just("plan"), st.none()),
)


class World:
    """A registry, its planner, and the kernel that follows."""

    def __init__(self) -> None:
        self.now = 100.0
        self.by_address = True
        self.registry = self._fresh()
        self.planner = Planner(self.registry)
        self.kernel = KernelModel({NODE_IP})

    @staticmethod
    def settled() -> World:
        """Apps that share addresses, with like and unlike labels, and a vservice before all of them."""
        world = World()
        for i, (address, labels) in enumerate(((0, 0), (0, 1), (1, 2), (3, 0), (3, 1)), 1):
            world.registry.add_app(App(i, f"uid-{i}", Class(LABELS[labels]), ADDRESSES[address]))
        for app in (1, 2, 3, 4):
            world.registry.listener_up(Service(app, Protocol.TCP, 80, 40000 + app * 10))
        backends = tuple(Backend(address, weight=i + 1) for i, address in enumerate(ADDRESSES))
        ports = (PortMap(80, 80), PortMap(81, 40010))
        world.registry.create_vservice(VService("a", (ADDRESSES[2],), ports, backends))
        behind = Backend(NODE_IP, 40030)  # the real port of app 3
        world.registry.create_vservice(VService("b", (ADDRESSES[4],), (PortMap(80, 80),), (behind,)))
        world.plan()
        return world

    def _fresh(self) -> Registry:
        return Registry(
            "host",
            NODE_IP,
            local_ips=frozenset({NODE_IP}),
            dns_ip=DNS_IP,
            dns_port=5300,
            by_address=self.by_address,
        )

    def do(self, change: tuple[str, object]) -> None:
        """Apply one change; those that are not possible now do nothing."""
        registry = self.registry
        match change:
            case "add_app", App() as app if app.id not in registry.index.apps:
                registry.add_app(app)
            case "remove_app", int() as app_id if app_id in registry.index.apps:
                registry.remove_app(app_id)
            case "listener_up", Service() as service:
                registry.listener_up(service)
            case "listener_down", Service() as service:
                registry.listener_down(service)
            case "resync", list() as found:
                registry.resync(found)
            case "create_vservice", VService() as vservice:
                try:
                    registry.create_vservice(vservice)
                except Conflict:
                    pass
            case "delete_vservice", str() as name:
                mine = {v.name for v in registry.snapshot.vservices if v.origin == "user"}
                if name in mine:
                    registry.delete_vservice(name)
            case "replace_istio", list() as pushed:
                table = tuple(replace(v, origin="istio") for v in pushed)
                registry.replace_istio(
                    Mesh(table, (), registry.snapshot.policies, registry.snapshot.outbound)
                )
            case "set_policies", list() as policies:
                table = tuple(v for v in registry.snapshot.vservices if v.origin == "istio")
                once = {policy.addresses: policy for policy in policies}
                registry.replace_istio(Mesh(table, (), tuple(once.values()), registry.snapshot.outbound))
            case "set_outbound", Outbound() as outbound:
                table = tuple(v for v in registry.snapshot.vservices if v.origin == "istio")
                registry.replace_istio(Mesh(table, (), registry.snapshot.policies, outbound))
            case "set_dns", int() as port:
                registry.set_dns(DNS_IP if port else None, port)
            case "wait", float() as seconds:
                self.now += seconds
                self.plan()
            case "restart", bool() as forgot:
                self._restart(forgot)
            case "restart_by_address", bool() as by_address:
                self.by_address = by_address
                self._restart(False)
            case "plan", None:
                self.plan()

    def plan(self) -> None:
        """Bring the kernel up to date."""
        self.kernel.apply(self.planner.plan(self.now), self.now)
        snapshot = self.registry.snapshot
        self.kernel.set_services(snapshot.services, snapshot.apps)

    def _restart(self, forgot: bool) -> None:
        """The daemon dies; the next one knows what the journal has (or has lost all vservices)."""
        self.plan()
        self.now += 1.0
        old, self.registry = self.registry, self._fresh()
        snapshot = old.snapshot
        self.registry.set_dns(snapshot.dns_ip, snapshot.dns_port)
        for app in snapshot.apps:
            self.registry.add_app(app, old.class_index(app.app_class))
        self.registry.resync(snapshot.services)
        if not forgot:
            for vservice in snapshot.vservices:
                if vservice.origin == "user":
                    self.registry.create_vservice(vservice)
            self.registry.replace_istio(
                Mesh(
                    tuple(v for v in snapshot.vservices if v.origin == "istio"),
                    (),
                    snapshot.policies,
                    snapshot.outbound,
                )
            )
        self.planner = Planner(self.registry)
        self.planner.restore(self.kernel.dump(), self.now)
        commands = self.planner.plan(self.now)
        assert forgot or not commands, commands
        self.kernel.apply(commands, self.now)

    def destinations(self) -> list[Destination]:
        """Everything worth asking for."""
        real = sorted({s.real_port for s in self.registry.snapshot.services})
        addresses = (*ADDRESSES, OUTSIDE, DNS_IP, *NAMESERVERS[:2])
        found = [
            Destination(a, p, proto) for a in addresses for p in (*PORTS, 53, 6664) for proto in Protocol
        ]
        return found + [Destination(NODE_IP, p, proto) for p in real for proto in Protocol]
