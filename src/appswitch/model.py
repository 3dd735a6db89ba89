"""The frozen vocabulary that all packages share (policies: `policy.py`).  No I/O.

Addresses are `ipaddress.IPv4Address`, ports are 0..65535 in host order, an AppId is eight hex
digits in text and a 32-bit number in the kernel's tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network

from appswitch.policy import InboundPolicy


class Protocol(IntEnum):
    """IP protocol numbers (netinet/in.h) of what AppSwitch handles."""

    TCP = 6
    UDP = 17

    @property
    def label(self) -> str:
        """The name in tables and in REST: `tcp` or `udp`."""
        return self.name.lower()


class LbPolicy(Enum):
    """How a connection's backend is picked; the values are the manual's (4.4.1)."""

    RANDOM = "Random"
    ROUND_ROBIN = "RoundRobin"


@dataclass(frozen=True, slots=True)
class Labels:
    """A set of `key=value` pairs.  Two parties may talk only if they share at least one pair."""

    pairs: frozenset[tuple[str, str]] = frozenset({("zone", "default")})

    def shares(self, other: Labels) -> bool:
        """Whether at least one pair is in both."""
        return not self.pairs.isdisjoint(other.pairs)

    def __str__(self) -> str:
        return ",".join(f"{key}={value}" for key, value in sorted(self.pairs))


DEFAULT_LABELS = Labels()
ASKED_NAMESERVER = Labels(frozenset({("", "")}))
"""Of the built-in DNS where it answers for apps' own nameservers.  No user's labels have an empty key."""


@dataclass(frozen=True, slots=True)
class Class:
    """Apps that are equal before policy: same labels, same Istio identity."""

    labels: Labels = DEFAULT_LABELS
    namespace: str = ""
    service_account: str = ""
    asks_nameservers: bool = False
    """No resolv.conf could be shown to these apps: what they ask of their own nameservers, the built-in
    DNS answers."""
    address: IPv4Address | None = None
    """Where policies may look at addresses (`ax daemon --istio`), the app's own: only what a policy guards is
    compiled by it.  None: not known, and an app is barred from all that is guarded."""

    def reaches(self, labels: Labels) -> bool:
        """Whether these apps may talk to what has these labels."""
        return self.asks_nameservers if labels == ASKED_NAMESERVER else self.labels.shares(labels)


@dataclass(frozen=True, slots=True)
class Expose:
    """One `--expose`: an app's port made reachable to strangers on a node's port."""

    port: int
    host_port: int
    host_ip: IPv4Address | None = None
    """None: the app's own node; 0.0.0.0: every node."""


@dataclass(frozen=True, slots=True)
class App:
    """One `ax run` (later: one container or pod)."""

    id: int
    """AppId, never 0."""
    uid: str
    """UUID: the NAME column shows it in angle brackets where no name was given."""
    app_class: Class
    ip: IPv4Address
    """The virtual address of all its services: `--ip`, or made from `--name`, or the node's."""
    name: str = ""
    pid: int = 0
    """Of the launched program; 0 once unknown."""
    user: int = 0
    """uid the program runs as."""
    new_netns: bool = True
    """It lives in an empty namespace and its sockets are injected."""
    exposes: tuple[Expose, ...] = ()
    connect_wait: float = 0.0
    """Seconds, in tenths, that its connect() waits where something is known and nobody listens yet."""
    nameservers: tuple[IPv4Address, ...] = ()
    """Of the resolv.conf that it sees, where that is not ours."""
    cgroup: str = ""
    """Path of its cgroup below the cgroup v2 mount, starting with '/': `ax-ID`, or what was attached."""
    attached: bool = False
    """By `ax attach`: the cgroup is somebody else's, and stays."""
    cgroup_id: int = 0
    """Of an attached one: the kernel's number, by which a later cgroup at the same path is told apart."""
    own_ip: IPv4Address | None = None
    """Its address in a network namespace of its own (a pod); None: it has none of its own."""
    inside: int = 0
    """AppId of the app around it whose filter traps its socket(), where `ax run` ran inside `ax run`; 0: none."""

    @property
    def addresses(self) -> tuple[IPv4Address, ...]:
        """All by which other apps may dial it."""
        return (self.ip,) if self.own_ip in (None, self.ip) else (self.ip, self.own_ip)

    @property
    def source_ip(self) -> IPv4Address:
        """The one that the servers it dials see."""
        return self.own_ip or self.ip

    @property
    def id_text(self) -> str:
        """AppId as shown: eight hex digits."""
        return f"{self.id:08x}"


class BindScope(IntEnum):
    """Which destination addresses a listening socket answers to."""

    ANY = 0
    """Bound to 0.0.0.0 or ::"""
    VIRTUAL = 1
    """Bound to the app's own virtual address."""
    LOOPBACK = 2
    """Bound to 127.x or ::1: reachable by the same app only."""


@dataclass(frozen=True, slots=True)
class Service:
    """A row of the service table: one (app, protocol, port) that is being listened on."""

    app: int
    protocol: Protocol
    port: int
    """The port the app asked for."""
    real_port: int
    """The port of this node it is really bound to."""
    scope: BindScope = BindScope.ANY
    cookie: int = 0
    """SO_COOKIE of the (first) listening socket."""
    backlog: int = 0


def is_local(address: IPv4Address) -> bool:
    """Whether an address means another thing on each machine: loopback, link-local, 0.x.

    Whoever may only write a mesh's configuration, or answers a DNS question, sends nobody there.
    """
    return address.is_loopback or address.is_link_local or address.packed[0] == 0


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of a vservice: an app's virtual address or an address outside."""

    address: IPv4Address
    port: int = 0
    """0: the vservice's target port."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class PortMap:
    """A vservice's port and the backends' port behind it."""

    port: int
    target: int


@dataclass(frozen=True, slots=True)
class VService:
    """Virtual IP:port pairs in front of backends."""

    name: str
    """Unique.  Istio's are named by cluster or host, e.g. `reviews.default.svc.cluster.local:9080`."""
    addresses: tuple[IPv4Address, ...]
    ports: tuple[PortMap, ...]
    backends: tuple[Backend, ...]
    policy: LbPolicy = LbPolicy.RANDOM
    protocol: Protocol = Protocol.TCP
    source_ip: IPv4Address | None = None
    """Source address for connections to backends outside (`--source-ip`)."""
    origin: str = "user"
    """`user` (REST, CLI) or `istio`."""
    ports_text: str = ""
    """The VSPORTS column as created, e.g. `[{8000 10000}]`."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """What is done with TCP connections to destinations that nothing else is said of."""

    registry_only: bool = False
    """They are refused (ENETUNREACH)."""
    direct: tuple[tuple[IPv4Network, int], ...] = ()
    """Network and port of those that are dialled all the same."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """All that a control plane asks of connections."""

    vservices: tuple[VService, ...] = ()
    names: tuple[tuple[str, tuple[IPv4Address, ...]], ...] = ()
    """Beside those of apps and vservices."""
    policies: tuple[InboundPolicy, ...] | None = ()
    """At most one for each address.  None: nothing was said yet; what was in force stays."""
    outbound: Outbound | None = Outbound()
    """None: likewise."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What an app asked to reach."""

    address: IPv4Address
    port: int
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision may depend on, frozen.  Built by the registry, read by `decide()`."""

    node: str
    node_ip: IPv4Address
    apps: tuple[App, ...] = ()
    services: tuple[Service, ...] = ()
    vservices: tuple[VService, ...] = ()
    names: tuple[tuple[str, tuple[IPv4Address, ...]], ...] = ()
    """Names from Istio's name table beside those of apps and vservices."""
    policies: tuple[InboundPolicy, ...] = ()
    """Who may connect to the apps that have their addresses; at most one for each address."""
    outbound: Outbound = Outbound()
    dns_ip: IPv4Address | None = None
    """The vIP that the apps' resolv.conf names; None: built-in DNS is off."""
    dns_port: int = 0
    """Port of the daemon's DNS sockets on 127.0.0.1."""
    rest_port: int = 6664
    local_ips: frozenset[IPv4Address] = field(default_factory=frozenset)
    """The node's own addresses, loopback left out."""
