"""From Istiod's configuration to vservices and names.  Pure: no I/O, no clock.

Order of look-up as in Envoy: the listener `VIP_port` if there is one, else `0.0.0.0_port`, whose routes
(RDS) say which virtual host owns which VIP.  Make before break: what waits for a part that has not come
yet (a route's new cluster, a listener's new routes) keeps its last good row, and a cluster that is
removed while a route still names it keeps its last endpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_address
from types import MappingProxyType

from appswitch.model import LbPolicy, VService
from appswitch.policy import InboundPolicy, is_open
from appswitch.xds import names
from appswitch.xds.ads import Config
from appswitch.xds.balance import Member
from appswitch.xds.chains import bare_name, catch_all, choose, shares
from appswitch.xds.members import Clusters, Members
from appswitch.xds.resolution import Answers
from appswitch.xds.resources import (
    BLACKHOLE,
    PASSTHROUGH,
    Balance,
    Chain,
    Discovery,
    HttpTarget,
    Listener,
    RouteConfig,
    TcpTarget,
    Unsupported,
    VirtualHost,
    Weighted,
)
from appswitch.xds.rows import Key, Made, Row, vservices

ALLOW_ANY, REGISTRY_ONLY = "ALLOW_ANY", "REGISTRY_ONLY"
VIRTUAL_INBOUND, VIRTUAL_OUTBOUND = "virtualInbound", "virtualOutbound"
MOST_DIRECT = 1024
"""Addresses of one range that REGISTRY_ONLY may leave alone: each has an entry in the tables."""
EVERYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Translation:
    """What a configuration means to connections."""

    vservices: tuple[VService, ...] = ()
    """Sorted by name."""
    names: names.Names = ()
    unsupported: tuple[Unsupported, ...] = ()
    outbound: str = ""
    """Policy for destinations that are not in the mesh.  Empty: nothing was said yet."""
    direct: tuple[tuple[IPv4Network, int], ...] = ()
    """Network and port of those that REGISTRY_ONLY leaves alone."""
    policies: tuple[InboundPolicy, ...] | None = None
    """Who may connect to the workload's servers; empty: everybody.  None: nothing was said yet."""


class Translator:
    """Translates one configuration after the other; remembers the last for make-before-break."""

    def __init__(
        self,
        namespace: str = "default",
        domain: str = "svc.cluster.local",
        addresses: tuple[IPv4Address, ...] = (),
        trust_domain: str = "cluster.local",
    ) -> None:
        """`namespace` and `domain` of the workload as which this client asks: they decide short names.

        `addresses`: the workload's, whose inbound policy it gets; `trust_domain`: of its peers' identities.
        """
        self._namespace, self._domain = namespace, domain
        self._addresses, self._trust_domain = addresses, trust_domain
        self._heard: set[str] = set()
        """Of the listeners that say the policies: until then nothing is known, and nothing is opened."""
        self._members: dict[str, Members] = {}
        self._rows: dict[Key, Row] = {}
        self._made: Made = {}

    def row(self, address: IPv4Address, port: int) -> Row | None:
        """What a VIP and port leads to since the last translation; None: nothing stands there."""
        return self._rows.get((address, port))

    def behind(self, cluster: str) -> Members | None:
        """What rows of the last translation took a cluster for; None: it does not exist."""
        return self._members.get(cluster)

    def translate(self, config: Config, answers: Answers = MappingProxyType({})) -> Translation:
        """The whole configuration; parts that did not change are taken from the last one.

        `answers`: the addresses of host names; a cluster with one that is not in there is awaited.
        """
        work = _Work(config, answers, self._members, self._rows)
        work.run()
        self._members, self._rows = work.clusters.used, work.rows
        self._made = vservices(work.rows, self._made)
        self._heard |= {VIRTUAL_INBOUND, VIRTUAL_OUTBOUND} & config.listeners.keys()
        policies = self._policies(config, work)
        found = set(work.notes)
        for group in (config.clusters, config.assignments, config.listeners, config.routes):
            for resource in group.values():
                found.update(resource.unsupported)
        if config.names is not None:
            found.update(config.names.unsupported)
        return Translation(
            tuple(vservice for _, vservice in self._made.values()),
            names.answers(config.names, self._namespace, self._domain),
            tuple(sorted(found, key=lambda item: (item.field, item.resource, item.instead, item.object))),
            work.outbound if VIRTUAL_OUTBOUND in self._heard else "",
            tuple(sorted(work.direct)),
            policies,
        )

    def _policies(self, config: Config, work: _Work) -> tuple[InboundPolicy, ...] | None:
        for listener in config.listeners.values():
            if listener.name != VIRTUAL_INBOUND and not all(map(is_open, listener.access)):
                work.note("inbound.listener", listener.name, "its policy is not applied")
        if VIRTUAL_INBOUND not in self._heard:
            return None
        inbound = config.listeners.get(VIRTUAL_INBOUND)
        if inbound is None or all(map(is_open, inbound.access)):
            return ()
        if not self._addresses:
            work.note("inbound.rbac", inbound.name, "the workload has no IPv4 address: it is nobody's policy")
            return ()
        work.note("inbound.rbac.strangers", inbound.name, "programs that are no apps are not held to it")
        return (InboundPolicy(self._addresses, self._trust_domain, inbound.access),)


@dataclass(slots=True)
class _Work:
    """One translation."""

    config: Config
    answers: Answers
    old_members: dict[str, Members]
    old_rows: dict[Key, Row]
    rows: dict[Key, Row] = field(default_factory=dict)
    notes: set[Unsupported] = field(default_factory=set)
    outbound: str = ALLOW_ANY
    direct: set[tuple[IPv4Network, int]] = field(default_factory=set)
    hosts_of: dict[IPv4Address, list[str]] = field(default_factory=dict)
    addresses_of: dict[str, tuple[IPv4Address, ...]] = field(default_factory=dict)
    exact: set[Key] = field(default_factory=set)
    """VIPs that have a listener of their own."""
    clusters: Clusters = field(init=False)

    def __post_init__(self) -> None:
        self.clusters = Clusters(self.config, self.answers, self.old_members, self.note)

    def run(self) -> None:
        """Fill `rows`, `notes` and `outbound`."""
        for name in self.config.names.names if self.config.names else ():
            self.addresses_of[name.host] = name.addresses
            for vip in name.addresses:
                self.hosts_of.setdefault(vip, []).append(name.host)
        if VIRTUAL_OUTBOUND in self.config.listeners:
            self._outbound(self.config.listeners[VIRTUAL_OUTBOUND])
        shared: list[tuple[Listener, int]] = []
        for _, listener in sorted(self.config.listeners.items()):
            if not listener.outbound or listener.name == VIRTUAL_OUTBOUND:
                continue
            for host, port in listener.addresses:
                address = ip_address(host)
                if address.is_unspecified:
                    shared.append((listener, port))
                elif isinstance(address, IPv4Address):
                    self.exact.add((address, port))
                    self._own(listener, address, port)
        for listener, port in shared:
            self._shared(listener, port)

    def note(self, field_name: str, resource: str, instead: str) -> None:
        self.notes.add(Unsupported(field_name, resource, instead))

    def _outbound(self, listener: Listener) -> None:
        for chain in (*listener.chains, listener.default):
            if chain is None or chain.port or not isinstance(chain.target, TcpTarget):
                continue
            if any(part.cluster == BLACKHOLE for part in chain.target.clusters):
                self.outbound = REGISTRY_ONLY

    # -- a VIP's own listener

    def _own(self, listener: Listener, address: IPv4Address, port: int) -> None:
        plain, sniffed = choose(listener, address, port)
        if plain is None and sniffed is None:
            self.note("listener.filter_chains", listener.name, "no chain takes a plain connection: refused")
            self._put(listener, address, port, "", ())
            return
        http = self._http_clusters(sniffed, address) if sniffed is not None else None
        if plain is None:
            if http is None:
                self._keep(address, port)  # its routes have not come yet
            else:
                self._put(listener, address, port, *http)
            return
        if isinstance(plain, TcpTarget):
            if http is not None and shares(http[1]) != shares(plain.clusters):
                self.note("listener.http", listener.name, "HTTP has other routes: those of TCP are used")
            self._put(listener, address, port, "", plain.clusters)

    def _http_clusters(
        self, target: HttpTarget, address: IPv4Address
    ) -> tuple[str, tuple[Weighted, ...]] | None:
        """Host and clusters for a VIP; None while the routes have not come."""
        routes = self._routes(target)
        if routes is None:
            return None
        hosts = self.hosts_of.get(address, [])
        for wanted in (str(address), *hosts, "*"):
            for host in routes.hosts:
                if wanted in host.domains:
                    return bare_name(host), self._catch_all(routes, host)
        return "", ()

    def _routes(self, target: HttpTarget) -> RouteConfig | None:
        return target.inline if target.inline is not None else self.config.routes.get(target.route_config)

    def _catch_all(self, routes: RouteConfig, host: VirtualHost) -> tuple[Weighted, ...]:
        clusters = catch_all(host)
        if clusters is not None:
            return clusters
        if host.routes:
            name = f"{routes.name}/{host.name}"
            self.note("virtual_host.routes", name, "none takes every request: connections are refused")
        return ()

    # -- a listener that HTTP services of one port share

    def _shared(self, listener: Listener, port: int) -> None:
        for chain in (*listener.chains, listener.default):
            if chain is None:
                continue
            if isinstance(chain.target, TcpTarget):
                self._shared_tcp(listener, chain, port)
            elif isinstance(chain.target, HttpTarget) and not chain.never:
                routes = self._routes(chain.target)
                if routes is not None:
                    self._hosts(listener, routes, port)
                else:
                    for (address, its_port), row in self.old_rows.items():
                        if row.listener == listener.name and (address, its_port) not in self.exact:
                            self._keep(address, its_port)

    def _shared_tcp(self, listener: Listener, chain: Chain, port: int) -> None:
        """A chain for address ranges, for TLS server names, or for every address."""
        if not isinstance(chain.target, TcpTarget):
            return
        if self._leads_outside(chain.target.clusters):
            if not chain.never and not any(part.cluster == BLACKHOLE for part in chain.target.clusters):
                self._leave_alone(listener, chain.prefixes or (EVERYWHERE,), port)
            return
        for network in chain.prefixes:
            if network.prefixlen == 32 and not chain.never:
                address = network.network_address
                if (address, port) not in self.exact:
                    self.exact.add((address, port))
                    self._put(listener, address, port, "", chain.target.clusters)
            else:
                self.note("filter_chain_match.prefix_ranges", listener.name, f"{network}: dialled directly")
        if not chain.prefixes and not chain.never:
            self.note("listener.address", listener.name, "a service without address: dialled directly")

    def _leave_alone(self, listener: Listener, networks: tuple[IPv4Network, ...], port: int) -> None:
        """What leads where it was asked to, which REGISTRY_ONLY must let pass."""
        for network in networks if self.outbound == REGISTRY_ONLY else ():
            if network.num_addresses <= MOST_DIRECT:
                self.direct.add((network, port))
            else:
                instead = f"REGISTRY_ONLY: {network}, more than {MOST_DIRECT} addresses, is refused"
                self.note("filter_chain_match.prefix_ranges", listener.name, instead)

    def _leads_outside(self, clusters: tuple[Weighted, ...]) -> bool:
        known = self.config.clusters
        return bool(clusters) and all(
            part.cluster in (PASSTHROUGH, BLACKHOLE)
            or (part.cluster in known and known[part.cluster].discovery is Discovery.ORIGINAL_DST)
            for part in clusters
        )

    def _hosts(self, listener: Listener, routes: RouteConfig, port: int) -> None:
        """Each VIP goes to the virtual host that has it among its domains, else to that which names it."""
        # At whatever address these are asked for, it is dialled as it is: that is what shall happen.
        direct = {host.name for host in routes.hosts if self._leads_outside(catch_all(host) or ())}
        owner: dict[IPv4Address, VirtualHost] = {}
        for host in routes.hosts:
            for domain in host.domains:
                address = self._domain(domain, port, f"{routes.name}/{host.name}", host.name not in direct)
                if address is not None:
                    owner[address] = host
        for host in routes.hosts:
            for address in (item for domain in host.domains for item in self.addresses_of.get(domain, ())):
                if owner.setdefault(address, host) is not host:
                    self.note("virtual_host.domains", f"{routes.name}/{host.name}", f"{address} is another's")
        owners = {host.name for host in owner.values()}
        noted = {item.resource for item in self.notes}
        for host in routes.hosts:
            resource = f"{routes.name}/{host.name}"
            if host.name in owners or host.name in direct:
                continue
            if "*" not in host.domains and resource not in noted:
                self.note("virtual_host.domains", resource, "no address leads to it")
        for address, host in owner.items():
            if (address, port) not in self.exact:
                self._put(listener, address, port, bare_name(host), self._catch_all(routes, host))

    def _domain(self, domain: str, port: int, resource: str, told: bool) -> IPv4Address | None:
        """The address that a domain is, with or without its port; `told`: ranges are reported."""
        text = domain.removesuffix(f":{port}")
        try:
            return IPv4Address(text)
        except ValueError:
            pass
        if not told:
            return None
        if "/" in text and text[0].isdigit():
            self.note("virtual_host.domains", resource, f"{text}: dialled directly")
        elif text.startswith("["):
            self.note("virtual_host.domains", resource, f"{text}: IPv6")
        return None

    # -- rows

    def _put(
        self, listener: Listener, address: IPv4Address, port: int, host: str, clusters: tuple[Weighted, ...]
    ) -> None:
        """Write a row, or keep the last one while one of its clusters has no endpoints yet."""
        parts: list[tuple[int, tuple[Member, ...]]] = []
        live = [part for part in clusters if part.weight > 0]
        policies = set()
        empty: list[str] = []
        direct = 0
        for part in live:
            known = self.config.clusters.get(part.cluster)
            if known is not None and known.discovery is Discovery.ORIGINAL_DST:
                direct += 1
                continue
            found = self.clusters.members(part.cluster, listener.name)
            if found is None:
                self._keep(address, port)
                return
            policies.add(found.cluster.balance)
            parts.append((part.weight, found.members))
            if not found.members:
                empty.append(part.cluster)
        if len(empty) < len(parts):
            for name in empty:
                self.note(
                    "weighted_clusters",
                    f"{listener.name}: {name}",
                    "it has no endpoints: its share goes to the others instead of being refused",
                )
        if direct:
            if direct < len(live):
                self.note(
                    "weighted_clusters", listener.name, "a share would go to the address itself: it does not"
                )
            else:
                self._leave_alone(listener, (IPv4Network(address),), port)
                return  # the address itself: nothing stands between
        policy = LbPolicy.RANDOM
        if len(live) == 1 and policies == {Balance.ROUND_ROBIN}:
            policy = LbPolicy.ROUND_ROBIN
        name = host or self._host(address, live)
        row = Row(name, listener.name, tuple(parts), policy, tuple(live), host)
        old = self.old_rows.get((address, port))
        self.rows[address, port] = old if old is not None and old == row else row

    def _keep(self, address: IPv4Address, port: int) -> None:
        row = self.old_rows.get((address, port))
        if row is not None:
            self.rows[address, port] = row
            self.clusters.keep(part.cluster for part in row.clusters)

    def _host(self, address: IPv4Address, clusters: list[Weighted]) -> str:
        """The name of what is behind a VIP: from the name table, else from the cluster's name."""
        named = self.hosts_of.get(address, [])
        behind = [  # an xdstp:// name is opaque
            part.cluster.split("|")[3]
            for part in clusters
            if part.cluster.count("|") == 3 and not part.cluster.startswith("xdstp:")
        ]
        for host in behind:
            if host in named:
                return host
        return (named or behind or [str(address)])[0]
