"""What is kept of Istiod's resources: frozen, small, and free of protobuf.

Only what a connection can honour is here; what a resource asks for beside that stands in its
`unsupported`.  Field names follow Envoy's proto files (envoy.config.{cluster,endpoint,listener,route}.v3).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from appswitch.policy import PortAccess

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
NDS = "type.googleapis.com/istio.networking.nds.v1.NameTable"
ORDER = (CDS, EDS, LDS, RDS, NDS)
"""Make before break: what is pointed at comes before what points at it."""

SHORT = {CDS: "cds", EDS: "eds", LDS: "lds", RDS: "rds", NDS: "nds"}

PASSTHROUGH = "PassthroughCluster"
BLACKHOLE = "BlackHoleCluster"


FETCH_TIMEOUT = 15.0
"""Seconds for which a resource that is asked for is waited for, where initial_fetch_timeout is not set."""

DNS_REFRESH = 5.0
"""Seconds between two questions for a host name where dns_refresh_rate is not set."""


@dataclass(frozen=True, slots=True, order=True)
class Unsupported:
    """One thing that a push asks for and that is not done."""

    field: str
    """Proto path below the resource, e.g. `cluster.outlier_detection`: the kind it is counted under."""
    resource: str
    """Name of the resource, with the virtual host or route where there is one."""
    instead: str = ""
    """What happens instead, or the value that was asked for."""
    object: str = ""
    """Of Istio, that asks for it, where Istiod names it: `KIND NAMESPACE/NAME`."""


class Discovery(Enum):
    """Where a cluster's endpoints come from (Cluster.type)."""

    STATIC = 0
    STRICT_DNS = 1
    LOGICAL_DNS = 2
    EDS = 3
    ORIGINAL_DST = 4
    CUSTOM = -1
    """Cluster.cluster_type: an extension."""


class Balance(Enum):
    """Cluster.lb_policy, by its numbers; of the others only the distribution is approximated."""

    ROUND_ROBIN = 0
    LEAST_REQUEST = 1
    RING_HASH = 2
    RANDOM = 3
    MAGLEV = 5
    CLUSTER_PROVIDED = 6
    TYPED_EXTENSION = 7


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server behind a cluster."""

    host: str
    """An IP address, or a host name (DNS clusters)."""
    ip: IPv4Address | None
    """None where `host` is no IPv4 address: nothing can be dialled."""
    port: int
    weight: int = 1
    """At least 1."""
    healthy: bool = True
    """HEALTHY or UNKNOWN; DEGRADED, DRAINING and the rest are not."""

    @property
    def named(self) -> bool:
        """`host` is to be resolved."""
        return self.ip is None and ":" not in self.host


@dataclass(frozen=True, slots=True)
class Locality:
    """Endpoints of one place and priority (LocalityLbEndpoints)."""

    place: tuple[str, str, str]
    """Region, zone, sub-zone."""
    priority: int
    """0 is used first."""
    weight: int
    """Counts only where the cluster asks for locality weights; 0 takes the locality out."""
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The endpoints of a cluster (ClusterLoadAssignment)."""

    name: str
    localities: tuple[Locality, ...]
    overprovisioning: int = 140
    """Percent: how much of a priority may be unhealthy before the next one gets a share."""
    unsupported: tuple[Unsupported, ...] = ()


@dataclass(frozen=True, slots=True)
class Refresh:
    """How a DNS cluster's host names are kept up to date; seconds."""

    interval: float = DNS_REFRESH
    """dns_refresh_rate: after an answer."""
    by_ttl: bool = False
    """respect_dns_ttl: the answer's time to live instead, where it has one."""
    jitter: float = 0.0
    """dns_jitter: at most so much is added, by chance."""
    failure: tuple[float, float] = (DNS_REFRESH, DNS_REFRESH)
    """dns_failure_refresh_rate: after the first failure, and the most; doubled in between."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where connections go (Cluster)."""

    name: str
    discovery: Discovery
    eds_name: str = ""
    """Name of its assignment in EDS; empty for other kinds."""
    balance: Balance = Balance.ROUND_ROBIN
    locality_weighted: bool = False
    panic_percent: float = 50.0
    """Below this share of healthy endpoints, all are used."""
    inline: Assignment | None = None
    """load_assignment of the kinds that carry it."""
    unsupported: tuple[Unsupported, ...] = ()
    fetch_timeout: float = FETCH_TIMEOUT
    """Seconds until an assignment that does not come does not exist; infinite: it is waited for."""
    refresh: Refresh | None = None
    """Of a DNS cluster."""
    object: str = ""
    """Of Istio, that it was made for, where Istiod names it: `KIND NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """A cluster's share of connections."""

    cluster: str
    weight: int


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a virtual host."""

    catch_all: bool
    """It matches whatever is asked for."""
    clusters: tuple[Weighted, ...]
    """Empty: it answers by itself, redirects, or chooses the cluster by a header."""
    match: str = ""
    """In words, as `istioctl` has it: `/*`, `/login`, …; for people."""
    object: str = ""
    """Of Istio, that it was made for, where Istiod names it: `KIND NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """The routes of a set of host names and addresses."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """RouteConfiguration."""

    name: str
    hosts: tuple[VirtualHost, ...]
    unsupported: tuple[Unsupported, ...] = ()


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """A TCP proxy filter."""

    clusters: tuple[Weighted, ...]


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An HTTP connection manager."""

    route_config: str
    """Name of its RouteConfiguration; empty if inline."""
    inline: RouteConfig | None = None
    fetch_timeout: float = FETCH_TIMEOUT
    """As Cluster's, of its RouteConfiguration."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A filter chain, and when it is chosen."""

    target: TcpTarget | HttpTarget | None
    """None: neither TCP proxy nor HTTP connection manager."""
    prefixes: tuple[IPv4Network, ...] = ()
    """Destination addresses; empty: any (unless `never`)."""
    port: int = 0
    """Destination port; 0: any."""
    detected: bool = False
    """Only for what protocol sniffing takes for HTTP."""
    never: bool = False
    """Chosen by what connect() cannot know: server name, source, IPv6 prefix."""
    object: str = ""
    """Of Istio, that it was made for, where Istiod names it: `KIND NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where connections are caught."""

    name: str
    addresses: tuple[tuple[str, int], ...]
    """IP address and port, additional addresses included."""
    outbound: bool
    """traffic_direction OUTBOUND: about the connections this node makes."""
    chains: tuple[Chain, ...]
    default: Chain | None = None
    unsupported: tuple[Unsupported, ...] = ()
    access: tuple[PortAccess, ...] = ()
    """Of the listener for connections to this workload: who may make them."""

    @property
    def route_configs(self) -> tuple[HttpTarget, ...]:
        """Those that name the RouteConfigurations it waits for."""
        chains = (*self.chains, self.default) if self.default else self.chains
        return tuple(
            chain.target
            for chain in chains
            if isinstance(chain.target, HttpTarget) and chain.target.route_config
        )


@dataclass(frozen=True, slots=True)
class Name:
    """A host and its addresses (NameTable.NameInfo)."""

    host: str
    addresses: tuple[IPv4Address, ...]
    registry: str = ""
    """`Kubernetes`, `External`, …"""
    short_name: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class NameTable:
    """All names that Istiod's DNS proxy would answer."""

    names: tuple[Name, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()


Resource = Cluster | Assignment | Listener | RouteConfig | NameTable


@dataclass(frozen=True, slots=True)
class RawResource:
    """One Any of a response, unopened."""

    type_url: str
    value: bytes
    name: str = ""
    """As the response calls it; empty: it does not say."""
    version: str = ""
    ttl: float | None = None
    """Seconds that it lives unless it is sent again; None: for ever."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a server does not send a resource (ResourceError, xDS proposal TP3)."""

    name: str
    code: int
    """google.rpc.Code."""
    reason: str


@dataclass(frozen=True, slots=True)
class Response:
    """A DiscoveryResponse or DeltaDiscoveryResponse whose resources are still bytes."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[RawResource, ...]
    removed: tuple[str, ...] = ()
    """Delta alone: names of resources that are no more."""
    refusals: tuple[Refusal, ...] = ()
