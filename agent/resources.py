"""What REST answers and `ax get` shows: one struct per resource, made from a frozen snapshot.

The structs are the single source of the OpenAPI document, of the JSON on the wire and of the columns in
`render.py`; fields are called like the manual's columns.  When decoded, unknown fields are ignored, so
that an older `ax` reads a newer daemon.  Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from appswitch.agent.resource_origin import OriginView
from appswitch.model import App, BindScope, Service, Snapshot, VService


class AppView(msgspec.Struct, frozen=True, kw_only=True):
    """One app (`ax run`) that is alive on a node."""

    appid: str
    """AppId, eight hex digits."""
    name: str
    """`--name`; empty where none was given."""
    uid: str
    nodeid: str
    cluster: str
    appip: str
    driver: str
    labels: list[str]
    """`key=value`, sorted.  Neither part holds ',' or '='."""
    zones: list[str]
    """One selector `key==value` a label: the groups this app can talk in."""
    pid: int
    user: int
    new_netns: bool
    network: str
    """`empty` (sockets are injected), `node` (the node's own) or `own` (a pod's, by `ax attach`)."""
    attached: bool
    """By `ax attach`: `ax detach` lets it go."""
    cgroup: str
    namespace: str
    service_account: str
    exposes: list[str]
    """As `--expose` was given: `port:host-port` or `port:node-ip:node-port`."""


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the service table: an app listens here and others may reach it."""

    nodeid: str
    cluster: str
    appid: str
    proto: str
    """`tcp` or `udp`."""
    serviceaddr: str
    """Virtual `IP:port`."""
    ipv4addr: str
    """`IP:port` it is really bound to: of the node, or of a pod."""
    name: str
    labels: list[str]


class SocketView(msgspec.Struct, frozen=True, kw_only=True):
    """A listening (or bound UDP) socket, loopback ones included."""

    id: str
    nodeid: str
    appid: str
    inode: int
    """Inode number in the node's sockfs; 0 if it closed meanwhile."""
    proto: str
    flags: int
    """0 bound to any address, 1 to the app's own, 2 to loopback (this app's alone)."""
    bindip: str
    """`IP:port` as the app sees it."""
    backlog: int
    real_port: int
    cookie: int


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a vservice, and the backends' port behind it."""

    port: int
    target: int


class BackendView(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of a vservice."""

    ip: str
    port: int
    """0: the vservice's target port."""
    weight: int


class VServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual IP:ports in front of backends."""

    name: str
    type: str
    """`Random` or `RoundRobin`."""
    ips: list[str]
    ports: list[PortView]
    ports_text: str
    """The ports as created, e.g. `[{8000 10000}]`."""
    backends: list[BackendView]
    proto: str
    source_ip: str
    origin: str
    """`user` or `istio`."""


class ProxyView(msgspec.Struct, frozen=True, kw_only=True):
    """A relay of this node (a gateway's listener)."""

    id: int
    proto: str
    listener: str
    dialers: list[str]


class DriverView(msgspec.Struct, frozen=True, kw_only=True):
    """A way to take over network calls, and whether it can be used on this node."""

    name: str
    usable: bool
    in_use: bool
    reason: str
    """Why not usable; empty if it is."""


class TableView(msgspec.Struct, frozen=True, kw_only=True):
    """How full one of the kernel's tables is, in entries."""

    used: int
    capacity: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's own state."""

    status: str
    """`ok`, or `degraded` with the problems named."""
    problems: list[str]
    version: str
    node: str
    node_ip: str
    cluster: str
    driver: str
    apps: int
    services: int
    vservices: int
    tables: dict[str, TableView]


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """One backend that was considered."""

    appid: str
    """Empty: an address outside."""
    address: str
    """`IP:port`."""
    weight: int
    """Its part of the connections, relative to the other eligible ones'."""
    share: float
    """Its part of new connections now, 0..1."""
    eligible: bool
    """Policy lets this client reach it."""
    live: bool
    """Somebody listens there (outside: not known, so true)."""
    state: str
    """`ok`, or why connections do not go there."""
    cluster: str = ""
    """Istio's, which it is an endpoint of; several with a comma.  Empty where not known, as the next."""
    priority: int | None = None
    """0 is used first."""
    locality: str = ""
    """`region/zone/sub-zone`."""
    health: str = ""
    """`HEALTHY` or `UNHEALTHY`, as Istiod says it."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What an app gets for a destination, and why; see `explain.py`."""

    client: str
    destination: str
    protocol: str
    verdict: str
    """`balance`, `refuse`, `direct` or `wait` (connect-wait)."""
    error: str
    """What connect() fails with, e.g. `EACCES`; empty unless refused, or after a wait in vain."""
    rule: str
    service: str
    policy: str
    why: str
    source_ip: str
    wait: float
    """Seconds at most: for a listener (`wait`), or for a backend outside that refuses (`balance`)."""
    candidates: list[CandidateView]
    origin: OriginView | None = None
    """Of a service of Istio's: the resources that the decision comes from."""
    origin_unknown: str = ""
    """Why that cannot be told."""
    lines: list[str]
    """All of it in words, as `ax explain` prints it."""


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer of status 4xx and 5xx."""

    error: str
    """A stable word for programs: `invalid`, `not-found`, `conflict`, …"""
    message: str
    hint: str
    """What to do next; may be empty."""


def app_views(snapshot: Snapshot, cluster: str, driver: str) -> list[AppView]:
    """All apps, in the order of their ids."""
    return [app_view(app, snapshot, cluster, driver) for app in sorted(snapshot.apps, key=lambda app: app.id)]


def server_views(snapshot: Snapshot, cluster: str) -> list[ServerView]:
    """The service table.  Loopback services are nobody else's and are left out (see sockets)."""
    apps = {app.id: app for app in snapshot.apps}
    rows = []
    for service in _ordered(snapshot.services):
        app = apps.get(service.app)
        if app is None or service.scope is BindScope.LOOPBACK:
            continue
        rows.append(
            ServerView(
                nodeid=snapshot.node,
                cluster=cluster,
                appid=app.id_text,
                proto=service.protocol.label,
                serviceaddr=f"{app.ip}:{service.port}",
                ipv4addr=f"{app.own_ip or exposed_at(app, service) or snapshot.node_ip}:{service.real_port}",
                name=app.name,
                labels=_labels(app),
            )
        )
    return rows


def exposed_at(app: App, service: Service) -> IPv4Address | None:
    """The one address of the node where strangers may dial the service, if `--expose` named one."""
    for expose in app.exposes:
        if (expose.port, expose.host_port) == (service.port, service.real_port) and expose.host_ip:
            return expose.host_ip if int(expose.host_ip) else None
    return None


def socket_view(service: Service, app: App, node: str, inode: int) -> SocketView:
    """One socket; its id stays the same for as long as the socket lives."""
    key = f"{app.uid}/{service.protocol.label}/{service.port}/{service.cookie}"
    return SocketView(
        id=str(uuid5(_namespace(app.uid), key)),
        nodeid=node,
        appid=app.id_text,
        inode=inode,
        proto=service.protocol.label,
        flags=int(service.scope),
        bindip=f"{_bind_address(service, app)}:{service.port}",
        backlog=service.backlog,
        real_port=service.real_port,
        cookie=service.cookie,
    )


def vservice_view(vservice: VService) -> VServiceView:
    """One vservice."""
    pairs = " ".join(f"{{{pair.port} {pair.target}}}" for pair in vservice.ports)
    return VServiceView(
        name=vservice.name,
        type=vservice.policy.value,
        ips=[str(address) for address in vservice.addresses],
        ports=[PortView(port=pair.port, target=pair.target) for pair in vservice.ports],
        ports_text=vservice.ports_text or f"[{pairs}]",
        backends=[BackendView(ip=str(b.address), port=b.port, weight=b.weight) for b in vservice.backends],
        proto=vservice.protocol.label,
        source_ip="" if vservice.source_ip is None else str(vservice.source_ip),
        origin=vservice.origin,
    )


def vservice_views(snapshot: Snapshot) -> list[VServiceView]:
    """All vservices by name."""
    return [vservice_view(vservice) for vservice in sorted(snapshot.vservices, key=lambda v: v.name)]


def app_view(app: App, snapshot: Snapshot, cluster: str, driver: str) -> AppView:
    """One app."""
    return AppView(
        appid=app.id_text,
        name=app.name,
        uid=app.uid,
        nodeid=snapshot.node,
        cluster=cluster,
        appip=str(app.ip),
        driver=driver,
        labels=_labels(app),
        zones=[f"{key}=={value}" for key, value in sorted(app.app_class.labels.pairs)],
        pid=app.pid,
        user=app.user,
        new_netns=app.new_netns,
        network="own" if app.own_ip is not None else "empty" if app.new_netns else "node",
        attached=app.attached,
        cgroup=app.cgroup,
        namespace=app.app_class.namespace,
        service_account=app.app_class.service_account,
        exposes=[
            f"{e.port}:{e.host_port}" if e.host_ip is None else f"{e.port}:{e.host_ip}:{e.host_port}"
            for e in app.exposes
        ],
    )


def _labels(app: App) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(app.app_class.labels.pairs)]


def _ordered(services: Iterable[Service]) -> list[Service]:
    return sorted(
        services, key=lambda service: (service.app, service.protocol, service.port, service.real_port)
    )


def _bind_address(service: Service, app: App) -> IPv4Address:
    match service.scope:
        case BindScope.ANY:
            return IPv4Address("0.0.0.0")
        case BindScope.VIRTUAL:
            return app.ip
        case BindScope.LOOPBACK:
            return IPv4Address("127.0.0.1")


def _namespace(uid: str) -> UUID:
    try:
        return UUID(uid)
    except ValueError:  # an app adopted under an id that is no UUID
        return NAMESPACE_OID
