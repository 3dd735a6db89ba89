"""What the decision looks things up in: a snapshot of the registry, indexed.  Pure.

`Index.of(snapshot)` builds it once; the registry keeps one alive instead and changes it step by step.
Every change collects in `touched` the keys whose target may differ, so that one new listener costs
what it touches and not what exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from errno import EACCES, ENETUNREACH
from ipaddress import IPv4Address
from typing import Final

from appswitch.interceptor.targets import Access, Key, Member, Rule, Target, effective_weights
from appswitch.model import (
    ASKED_NAMESERVER,
    App,
    BindScope,
    Outbound,
    PortMap,
    Protocol,
    Service,
    Snapshot,
    VService,
)
from appswitch.policy import Guard, InboundPolicy

__all__ = [
    "DNS_PORT",
    "ELSEWHERE",
    "LOOPBACK_IP",
    "Access",
    "Index",
    "Key",
    "Member",
    "Rule",
    "Target",
    "effective_weights",
]

DNS_PORT: Final = 53
LOOPBACK_IP: Final = 0x7F000001
PROTOCOLS: Final = (int(Protocol.TCP), int(Protocol.UDP))
ELSEWHERE: Final = Key(0, 0, int(Protocol.TCP))
"""What has no key of its own (bpf/decide.h).  connect() to 0.0.0.0 means loopback: nobody else's key."""


class Index:
    """Apps, services and vservices by every key that a look-up needs."""

    def __init__(self, local_ips: frozenset[IPv4Address] = frozenset(), rest_port: int = 0) -> None:
        self.local = frozenset(map(int, local_ips))
        """The node's own addresses: what no app listens on there belongs to the host's programs."""
        self.rest_port = rest_port
        self.apps: dict[int, App] = {}
        self.touched: set[Key] = {Key(ip, rest_port, Protocol.TCP) for ip in self.local if rest_port}
        self._dns: tuple[int, int] | None = None
        self._by_ip: dict[int, dict[int, App]] = {}
        self._own: Counter[int] = Counter()
        """Addresses of pods, and how many apps have each."""
        self._nameservers: Counter[int] = Counter()
        """Those that apps ask and the built-in DNS answers for, and how many apps each has."""
        self._services: dict[int, dict[tuple[int, int], list[Service]]] = {}
        self._serving: dict[Key, set[int]] = {}
        self._real: dict[tuple[int, int], Service] = {}
        self._claims: dict[Key, list[tuple[bool, str, PortMap]]] = {}
        self._vservices: dict[str, VService] = {}
        self._fronts: dict[Key, int] = {}
        self._behind: dict[int, str | set[str]] = {}
        """Vservices by backend, as `_backends_of` numbers them.  Most have one: no set for those."""
        self._registry_only = False
        self._direct: dict[int, set[int]] = {}
        """Ports by address that are dialled all the same."""
        self._policies: dict[int, InboundPolicy] = {}
        """By the address of the workload."""
        self._named_ports: dict[int, frozenset[int]] = {}
        """Likewise, the ports that its policy names."""
        self._guards: dict[tuple[int, int], Guard | None] = {}
        """By address and port, as far as they were asked for."""

    @staticmethod
    def of(snapshot: Snapshot) -> Index:
        """Index all of a snapshot."""
        index = Index(snapshot.local_ips, snapshot.rest_port)
        index.set_dns(snapshot.dns_ip, snapshot.dns_port)
        for app in snapshot.apps:
            index.add_app(app)
        for service in snapshot.services:
            index.add_service(service)
        for vservice in snapshot.vservices:
            index.add_vservice(vservice)
        index.set_policies(snapshot.policies)
        index.set_outbound(snapshot.outbound)
        return index

    # --- what there is

    def all_keys(self) -> Iterator[Key]:
        """Every key that has a target, once."""
        candidates = {Key(ip, self.rest_port, Protocol.TCP) for ip in self.local}
        if self._dns:
            candidates |= {Key(self._dns[0], DNS_PORT, protocol) for protocol in PROTOCOLS}
        candidates.update(Key(ip, 0, protocol) for ip in self._by_ip for protocol in PROTOCOLS)
        candidates.update(Key(ip, DNS_PORT, protocol) for ip in self._nameservers for protocol in PROTOCOLS)
        for app in self.apps.values():
            candidates.update(self._named_keys(app))
        candidates.update(self._outbound_keys())
        candidates.update(self._claims, self._fronts, self._serving)
        return (key for key in candidates if self.target(key) is not None)

    def target(self, key: Key) -> Target | None:
        """What the key leads to; None: it is not in the tables."""
        ip, port, protocol = key
        if key == ELSEWHERE:
            return Target(Rule.OUTSIDE, "REGISTRY_ONLY", dead=ENETUNREACH) if self._registry_only else None
        if port == DNS_PORT and self._dns and ip == self._dns[0]:
            return Target(Rule.DNS, "dns", (Member(0, LOOPBACK_IP, self._dns[1], 1, 0, None),))
        if port == self.rest_port and port and protocol == Protocol.TCP and ip in self.local:
            return Target(Rule.REST, "rest", dead=EACCES)
        if claims := self._claims.get(key):
            return self._front(claims[0], protocol)
        if port:
            serving = self._serving.get(key)
            named = protocol == Protocol.TCP and self._is_named(ip, port)
            if serving and (ip in self.local or (len(self._by_ip[ip]) > 1 and not named)):
                return Target(Rule.SERVICE, "", self._members(key, serving))
            if ip in self.local and (port, protocol) in self._real:
                return None  # whose port that really is, says
            if not named:
                return self._nameserver(key) or self._dialled_directly(key)
        if apps := self._by_ip.get(ip):
            members = self._members(key, apps)
            if ip in self.local:
                error = ENETUNREACH if self._registry_only and protocol == Protocol.TCP else 0
                return Target(Rule.APP, "", members, denied=error, dead=error)
            if ip in self._own:  # a pod may have other containers, which the mesh does not know
                return Target(Rule.APP, "", members, dead=0)
            return Target(Rule.APP, "", members)
        if port:
            return self._nameserver(key) or self._dialled_directly(key)
        if key in self._fronts and ip not in self.local:
            return Target(Rule.VSERVICE, "")
        return None

    def listens(self, app: int, port: int, protocol: int) -> bool:
        """Whether others can reach this port of the app."""
        found = self._services.get(app, {}).get((port, protocol), ())
        return any(service.scope is not BindScope.LOOPBACK for service in found)

    def listens_privately(self, app: int, port: int, protocol: int) -> Service | None:
        """The app's service that answers to its own loopback."""
        for service in self._services.get(app, {}).get((port, protocol), ()):
            if service.scope is not BindScope.VIRTUAL:
                return service
        return None

    def serves(self, app: int, real_port: int, protocol: int) -> bool:
        """Whether the app listens there, really."""
        services = self._services.get(app, {}).values()
        return any(s.real_port == real_port and s.protocol == protocol for each in services for s in each)

    def on_real_port(self, port: int, protocol: int) -> Service | None:
        """The service that is really bound to this port of the node."""
        return self._real.get((port, protocol))

    def behind_real_port(self, address: int, port: int, protocol: int) -> tuple[App, Service] | None:
        """The app's port behind a real port of this node."""
        service = self.on_real_port(port, protocol) if address in self.local else None
        return (self.apps[service.app], service) if service else None

    def has_address(self, address: IPv4Address) -> bool:
        """Whether an app has this address."""
        return int(address) in self._by_ip

    def claimant(self, key: Key) -> str:
        """Name of the vservice that holds the key; empty: none."""
        claims = self._claims.get(key)
        return claims[0][1] if claims else ""

    # --- changes

    def set_dns(self, address: IPv4Address | None, port: int) -> None:
        """Where names are asked for, and where the daemon answers on 127.0.0.1."""
        before, self._dns = self._dns, (int(address), port) if address and port else None
        for ip in self._nameservers:
            self._touch_nameserver(ip)
        for dns in (before, self._dns):
            if dns:
                self.touched.update(Key(dns[0], DNS_PORT, protocol) for protocol in PROTOCOLS)

    def set_policies(self, policies: Iterable[InboundPolicy]) -> None:
        """Who may connect to the apps of which addresses, in place of what was so before."""
        wanted = {int(address): policy for policy in policies for address in policy.addresses}
        changed = {ip for ip in wanted.keys() | self._policies if wanted.get(ip) != self._policies.get(ip)}
        guarded = {app.id: app for ip in changed for app in self._by_ip.get(ip, {}).values()}
        for app in guarded.values():
            self._touch_guarded(app)
        if guarded:  # backends at the node's own addresses may be real ports of theirs
            for place in [place for place in self._behind if place >> 16 in self.local]:
                self._touch_behind(place >> 16, place & 0xFFFF)
        self._policies = wanted
        self._named_ports = {ip: policy.named_ports for ip, policy in wanted.items()}
        self._guards = {place: guard for place, guard in self._guards.items() if place[0] not in changed}
        for app in guarded.values():
            self._touch_guarded(app)

    def set_outbound(self, outbound: Outbound) -> None:
        """What is done with TCP connections that nothing else is said of."""
        self.touched.update(self._outbound_keys())
        self._registry_only, self._direct = outbound.registry_only, {}
        for network, port in outbound.direct if outbound.registry_only else ():
            first = int(network.network_address)
            for ip in range(first, first + network.num_addresses):
                self._direct.setdefault(ip, set()).add(port)
        self.touched.update(self._outbound_keys())

    def add_app(self, app: App) -> None:
        """An app that has no service yet."""
        self.apps[app.id] = app
        self._services[app.id] = {}
        if app.own_ip is not None:
            self._own[int(app.own_ip)] += 1
        for address in app.addresses:
            self._by_ip.setdefault(int(address), {})[app.id] = app
            self._app_changed(int(address))
        self.touched.update(self._named_keys(app))
        for nameserver in map(int, app.nameservers):
            self._nameservers[nameserver] += 1
            self._touch_nameserver(nameserver)

    def replace_app(self, app: App) -> None:
        """New facts about a known app whose class and addresses stay."""
        self.apps[app.id] = app
        for address in app.addresses:
            self._by_ip[int(address)][app.id] = app

    def remove_app(self, app: App) -> None:
        """Its services first."""
        del self.apps[app.id], self._services[app.id]
        if app.own_ip is not None:
            self._own[int(app.own_ip)] -= 1
            self._own += Counter()  # without those at 0
        for ip in map(int, app.addresses):
            del self._by_ip[ip][app.id]
            if not self._by_ip[ip]:
                del self._by_ip[ip]
            self._app_changed(ip)
        self.touched.update(self._named_keys(app))
        for nameserver in map(int, app.nameservers):
            self._touch_nameserver(nameserver)
            self._nameservers[nameserver] -= 1
            self._nameservers += Counter()

    def add_service(self, service: Service) -> None:
        """A port of a known app is listened on."""
        services = self._services[service.app].setdefault((service.port, service.protocol), [])
        services.append(service)
        if self.apps[service.app].own_ip is None:
            self._real[service.real_port, service.protocol] = service
        self._service_changed(service)

    def remove_service(self, service: Service) -> None:
        """Undo `add_service` of an equal service."""
        services = self._services[service.app]
        services[service.port, service.protocol].remove(service)
        if not services[service.port, service.protocol]:
            del services[service.port, service.protocol]
        if self._real.get((service.real_port, service.protocol)) == service:
            del self._real[service.real_port, service.protocol]
        self._service_changed(service)

    def add_vservice(self, vservice: VService) -> None:
        """Its keys go to the user's vservice first, then to the first by name."""
        name = vservice.name
        self._vservices[name] = vservice
        for key, ports in _keys_of(vservice):
            claims = self._claims.setdefault(key, [])
            claims.append((vservice.origin != "user", name, ports))
            claims.sort(key=lambda claim: claim[:2])
            self._touch_claimed(key)
        for key in _fronts_of(vservice):
            self._fronts[key] = self._fronts.get(key, 0) + 1
            self.touched.add(key)
            self._touch_direct(key.address)
            self._touch_nameserver(key.address)
        for backend in self._backends_of(vservice):
            users = self._behind.setdefault(backend, name)
            if isinstance(users, set):
                users.add(name)
            elif users != name:
                self._behind[backend] = {users, name}

    def remove_vservice(self, vservice: VService) -> None:
        """Undo `add_vservice`."""
        name = vservice.name
        del self._vservices[name]
        for key, ports in _keys_of(vservice):
            self._claims[key].remove((vservice.origin != "user", name, ports))
            if not self._claims[key]:
                del self._claims[key]
            self._touch_claimed(key)
        for key in _fronts_of(vservice):
            self._fronts[key] -= 1
            if not self._fronts[key]:
                del self._fronts[key]
            self.touched.add(key)
            self._touch_direct(key.address)
            self._touch_nameserver(key.address)
        for backend in self._backends_of(vservice):
            users = self._behind.get(backend)
            if isinstance(users, set):
                users.discard(name)
            if not users or users == name:
                self._behind.pop(backend, None)

    # --- inside

    def _nameserver(self, key: Key) -> Target | None:
        """What apps that ask their own nameservers find there; for others it is as if there were no key."""
        ip, port, protocol = key
        if port != DNS_PORT or not self._dns or ip not in self._nameservers:
            return None
        if ip in self.local:
            if (port, protocol) in self._real:
                return None
        elif ip in self._by_ip or Key(ip, 0, protocol) in self._fronts:
            return None  # an address of ours has nobody's nameserver
        member = Member(0, LOOPBACK_IP, self._dns[1], 1, 0, Access(ASKED_NAMESERVER))
        return Target(Rule.DNS, "dns", (member,), denied=0, dead=0)

    def _outbound_keys(self) -> Iterator[Key]:
        """Those to which the outbound policy makes a difference."""
        yield ELSEWHERE
        for ip in self.local:
            yield Key(ip, 0, Protocol.TCP)
            for app in self._by_ip.get(ip, {}).values():
                yield from self._named_keys(app)
        for ip, ports in self._direct.items():
            for port in ports:
                yield Key(ip, port, Protocol.TCP)

    def _touch_direct(self, ip: int) -> None:
        self.touched.update(Key(ip, port, Protocol.TCP) for port in self._direct.get(ip, ()))

    def _dialled_directly(self, key: Key) -> Target | None:
        """What the mesh leads to itself; an address of ours is not the mesh's to say."""
        ip, port, protocol = key
        if protocol != Protocol.TCP or port not in self._direct.get(ip, ()):
            return None
        if ip in self._by_ip or Key(ip, 0, protocol) in self._fronts:
            return None
        return Target(Rule.OUTSIDE, "the mesh's registry", dead=0)

    def _touch_nameserver(self, ip: int) -> None:
        if ip in self._nameservers:
            self.touched.update(Key(ip, DNS_PORT, protocol) for protocol in PROTOCOLS)

    def _members(self, key: Key, apps: Iterable[int]) -> tuple[Member, ...]:
        ip, port, protocol = key
        return tuple(
            Member(app, ip, 0, 1, i, self._access(app, port, protocol)) for i, app in enumerate(sorted(apps))
        )

    # --- policies

    def _workload(self, app: App) -> int | None:
        """The address by which a policy is about the app; None: none is."""
        return next((int(each) for each in app.addresses if int(each) in self._policies), None)

    def _is_named(self, ip: int, port: int) -> bool:
        """Whether a policy says something of its own about this port of an app that has the address."""
        if not self._policies:
            return False
        workloads = (self._workload(app) for app in self._by_ip.get(ip, {}).values())
        return any(port in self._named_ports[each] for each in workloads if each is not None)

    def _named_keys(self, app: App) -> Iterator[Key]:
        workload = self._workload(app)
        for port in self._named_ports[workload] if workload is not None else ():
            for address in app.addresses:
                yield Key(int(address), port, Protocol.TCP)

    def _access(self, app: int, port: int, protocol: int) -> Access:
        labels = self.apps[app].app_class.labels
        workload = self._workload(self.apps[app]) if self._policies and protocol == Protocol.TCP else None
        guard = None if workload is None else self._guard(workload, port)
        if workload is None or guard is None:
            return Access(labels)
        also = () if port else self._claimed_guards(app, workload)
        shared = workload in self.local
        return Access(labels, guard, also, None if shared else self.apps[app].app_class)

    def _claimed_guards(self, app: int, workload: int) -> tuple[Guard, ...]:
        """Of ports that the policy names and a vservice has at the app's address: where nobody listens behind
        that, who dials them comes to the app all the same."""
        claimed = {
            port
            for address in self.apps[app].addresses
            for port in self._named_ports[workload]
            if Key(int(address), port, Protocol.TCP) in self._claims
        }
        guards = (self._guard(workload, port) for port in sorted(claimed))
        return tuple(guard for guard in guards if guard is not None)

    def _guard(self, workload: int, port: int) -> Guard | None:
        place = workload, port if port in self._named_ports[workload] else 0
        if place not in self._guards:
            self._guards[place] = self._policies[workload].guard(IPv4Address(workload), place[1])
        return self._guards[place]

    def _touch_claimed(self, key: Key) -> None:
        self.touched.add(key)
        if self._policies and key.address in self._by_ip:
            for app in self._by_ip[key.address].values():
                self.touched.update(Key(int(address), 0, Protocol.TCP) for address in app.addresses)

    def _touch_guarded(self, app: App) -> None:
        """All that a policy may make a difference to."""
        self.touched.update(self._named_keys(app))
        ports = {0} | {port for port, _ in self._services[app.id]}
        for ip in map(int, app.addresses):
            self.touched.update(Key(ip, port, Protocol.TCP) for port in ports)
            if ip not in self.local:
                self._touch_behind(ip, 0)

    def _front(self, claim: tuple[bool, str, PortMap], protocol: int) -> Target:
        _, name, ports = claim
        vservice = self._vservices[name]
        members: list[Member] = []
        for share, backend in enumerate(vservice.backends):
            ip, port = int(backend.address), backend.port or ports.target
            apps: Sequence[int] = self._apps_behind(ip, port, protocol)
            if not apps and (real := self.behind_real_port(ip, port, protocol)):
                apps, port = (real[0].id,), real[1].port
            if not apps:
                members.append(Member(0, ip, port, backend.weight, share, None))
            for app in apps:
                access = self._access(app, port, protocol)
                members.append(Member(app, ip, port, backend.weight, share, access))
        source = int(vservice.source_ip) if vservice.source_ip else 0
        return Target(Rule.VSERVICE, name, tuple(members), vservice.policy, source)

    def _apps_behind(self, ip: int, port: int, protocol: int) -> list[int]:
        """The apps that a backend stands for: of several at one address those that listen, if any does."""
        apps = self._by_ip.get(ip)
        if not apps:
            return []
        if ip in self.local:
            return sorted(self._serving.get(Key(ip, port, protocol), ()))
        if len(apps) > 1 and (serving := self._serving.get(Key(ip, port, protocol))):
            return sorted(serving)
        return sorted(apps)

    def _backends_of(self, vservice: VService) -> Iterator[int]:
        """What a change touches the vservice by: its backends' addresses; at the node's own, each port."""
        for backend in vservice.backends:
            ip = int(backend.address)
            if ip not in self.local:
                yield ip << 16
            else:
                for ports in vservice.ports:
                    yield ip << 16 | (backend.port or ports.target)

    def _touch_behind(self, ip: int, port: int) -> None:
        users = self._behind.get(ip << 16 | (port if ip in self.local else 0), ())
        for name in (users,) if isinstance(users, str) else users:
            self.touched.update(key for key, _ in _keys_of(self._vservices[name]))

    def _app_changed(self, ip: int) -> None:
        for protocol in PROTOCOLS:
            self.touched.add(Key(ip, 0, protocol))
        self._touch_direct(ip)
        self._touch_nameserver(ip)
        if ip not in self.local:
            self._touch_behind(ip, 0)
        if len(self._by_ip.get(ip, ())) <= 2:  # with the second app of an address, its ports get keys
            for app in self._by_ip.get(ip, ()):
                self.touched.update(Key(ip, *port) for port in self._services[app])

    def _service_changed(self, service: Service) -> None:
        app = self.apps[service.app]
        listens = self.listens(service.app, service.port, service.protocol)
        for ip in map(int, app.addresses):
            key = Key(ip, service.port, service.protocol)
            serving = self._serving.setdefault(key, set())
            if listens:
                serving.add(service.app)
            else:
                serving.discard(service.app)
            if not serving:
                del self._serving[key]
            self.touched.add(key)
            if ip in self.local or len(self._by_ip[ip]) > 1:
                self._touch_behind(ip, service.port)
        for local in self.local if app.own_ip is None else ():
            self._touch_behind(local, service.real_port)
            if self._is_named(local, service.real_port):
                self.touched.add(Key(local, service.real_port, Protocol.TCP))
            if service.real_port == DNS_PORT:
                self._touch_nameserver(local)


def _keys_of(vservice: VService) -> Iterator[tuple[Key, PortMap]]:
    for address in vservice.addresses:
        if address.is_loopback or address.is_link_local:
            continue  # each app's own: never looked up
        for ports in vservice.ports:
            if ports.port:
                yield Key(int(address), ports.port, vservice.protocol), ports


def _fronts_of(vservice: VService) -> list[Key]:
    """A made-up address leads nowhere but to its ports.  Istio's may exist: other ports pass through."""
    if vservice.origin != "user":
        return []
    return [Key(int(address), 0, protocol) for address in vservice.addresses for protocol in PROTOCOLS]
