"""Rows of `ax get xds|clusters|…`, a page at a time, from what the Istio agent holds.  Pure.

A page begins after a key and takes whole resources, so that it needs no memory between two questions, and
misses or repeats nothing but what changes meanwhile.  Another thread may take over a response while a page
is made: dicts are listed in one step, and what has gone by the time it is looked at is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from appswitch.agent.resource_xds import (
    ClusterView,
    EndpointView,
    ListenerView,
    RouteView,
    ShareView,
    XdsView,
)
from appswitch.errors import InvalidInput
from appswitch.xds.held import HeldType
from appswitch.xds.resources import (
    CDS,
    EDS,
    LDS,
    RDS,
    SHORT,
    Assignment,
    Chain,
    Cluster,
    Discovery,
    Endpoint,
    Listener,
    RouteConfig,
    TcpTarget,
    Weighted,
)
from appswitch.xds.status import keys, status, version

PAGE: Final = 2000
"""Rows, if no resource has more: some 20 ms and half a megabyte."""

Types = Mapping[str, HeldType]
Rows = list[Any]
Keys = Callable[[Types, str], Iterable[str]]
"""All keys after one, in order."""


def page(types: Types, kind: str, after: str, now: float, size: int = PAGE) -> tuple[Rows, str]:
    """Rows after a key, and the key after which there are more (empty: no more).  Raises InvalidInput."""
    if kind not in _KINDS:
        raise InvalidInput(f"the Istio agent has no {kind!r}: {', '.join(_KINDS)}")
    keys, make = _KINDS[kind]
    rows: Rows = []
    for key in keys(types, after):
        if len(rows) >= size:
            return rows, after
        rows += make(types, key, now)
        after = key
    return rows, ""


def age(since: float | None, now: float) -> float | None:
    """Seconds since then."""
    return None if since is None else max(now - since, 0.0)


def _held(url: str) -> Keys:
    """Names in force."""
    return lambda types, after: sorted(name for name in list(types[url].resources) if name > after)


# -- xds

_URLS: Final = {short: url for url, short in SHORT.items()}


def _asked(types: Types, after: str) -> Iterator[str]:
    short, _, name = after.partition("/")
    return (f"{SHORT[url]}/{key}" for url, key in keys(types, (short, name)))


def _xds(types: Types, key: str, now: float) -> Rows:
    short, _, name = key.partition("/")
    found = status(types[_URLS[short]], short, name)
    return [
        XdsView(
            type=short,
            name=name,
            status=found.status.value,
            version=found.version,
            seconds=age(found.since, now),
            error=found.error,
            error_version=found.error_version,
            error_seconds=age(found.error_at, now),
        )
    ]


# -- clusters


def cluster_parts(name: str) -> tuple[str, int, str, str]:
    """Direction, port, subset and host of Istio's name of a cluster; of any other only the last."""
    parts = name.split("|")
    if len(parts) == 4 and parts[1].isdigit():
        return parts[0], int(parts[1]), parts[2], parts[3]
    return "", 0, "", name


def _clusters(types: Types, name: str, now: float) -> Rows:
    state = types[CDS]
    cluster = cast("Cluster | None", state.resources.get(name))
    if cluster is None:
        return []
    direction, port, subset, host = cluster_parts(name)
    return [
        ClusterView(
            name=name,
            service_fqdn=host,
            port=port,
            subset=subset,
            direction=direction,
            type=cluster.discovery.name,
            policy=cluster.balance.name,
            object=cluster.object,
            version=version(state, name),
            seconds=age(state.since.get(name), now),
        )
    ]


# -- endpoints


def _endpoints(types: Types, name: str, now: float) -> Rows:
    cluster = cast("Cluster | None", types[CDS].resources.get(name))
    if cluster is None:
        return []
    url, key = (EDS, cluster.eds_name) if cluster.discovery is Discovery.EDS else (CDS, name)
    found = types[EDS].resources.get(key) if url == EDS else cluster.inline
    assignment = cast("Assignment | None", found)
    if assignment is None:
        return []
    came = version(types[url], key), age(types[url].since.get(key), now)
    return [
        EndpointView(
            endpoint=f"{endpoint.host}:{endpoint.port}",
            status=health(endpoint),
            cluster=name,
            weight=endpoint.weight,
            priority=locality.priority,
            locality=place_text(locality.place),
            locality_weight=locality.weight,
            version=came[0],
            seconds=came[1],
        )
        for locality in assignment.localities
        for endpoint in locality.endpoints
    ]


def health(endpoint: Endpoint) -> str:
    """As Istiod says it."""
    return "HEALTHY" if endpoint.healthy else "UNHEALTHY"


def place_text(place: tuple[str, str, str]) -> str:
    """Region, zone and sub-zone, as far as there are."""
    return "/".join(place).rstrip("/")


# -- listeners


def _listeners(types: Types, name: str, now: float) -> Rows:
    state = types[LDS]
    listener = cast("Listener | None", state.resources.get(name))
    if listener is None:
        return []
    came = version(state, name), age(state.since.get(name), now)
    chains: list[tuple[Chain | None, str]] = [(chain, _match(chain)) for chain in listener.chains]
    if listener.default is not None:
        chains.append((listener.default, "ALL" if not chains else "else"))
    return [
        ListenerView(
            name=name,
            address=address,
            port=port,
            match=match,
            destination=_destination(chain) if chain is not None else "Inbound",
            object=chain.object if chain is not None else "",
            version=came[0],
            seconds=came[1],
        )
        for address, port in listener.addresses or (("", 0),)
        for chain, match in chains or [(None, "-")]
    ]


def _match(chain: Chain) -> str:
    """In the words of `istioctl`, where it has some."""
    parts = [f"Addr: {','.join(map(str, chain.prefixes))}"] if chain.prefixes else []
    if chain.port:
        parts.append(f"Port: {chain.port}")
    if chain.detected:
        parts.append("App: HTTP")
    if chain.never:
        parts.append("TLS, source or IPv6 (passed over)")
    return "; ".join(parts) or "ALL"


def _destination(chain: Chain) -> str:
    target = chain.target
    if target is None:
        return "Other"
    if isinstance(target, TcpTarget):
        return f"Cluster: {_shares(target.clusters)}"
    return f"Route: {target.route_config}" if target.route_config else "Inline Route"


def _shares(clusters: tuple[Weighted, ...]) -> str:
    """`NAME`, or `NAME weight 80, NAME weight 20`."""
    if len(clusters) == 1:
        return clusters[0].cluster
    return ", ".join(f"{part.cluster} weight {part.weight}" for part in clusters) or "none"


# -- routes


def _routes(types: Types, name: str, now: float) -> Rows:
    state = types[RDS]
    config = cast("RouteConfig | None", state.resources.get(name))
    if config is None:
        return []
    came = version(state, name), age(state.since.get(name), now)
    return [
        RouteView(
            name=name,
            vhost=host.name,
            domains=list(host.domains),
            match=route.match,
            catch_all=route.catch_all,
            clusters=[ShareView(cluster=part.cluster, weight=part.weight) for part in route.clusters],
            object=route.object,
            version=came[0],
            seconds=came[1],
        )
        for host in config.hosts
        for route in host.routes
    ]


_KINDS: Final[dict[str, tuple[Keys, Callable[[Types, str, float], Rows]]]] = {
    "xds": (_asked, _xds),
    "clusters": (_held(CDS), _clusters),
    "endpoints": (_held(CDS), _endpoints),
    "listeners": (_held(LDS), _listeners),
    "routes": (_held(RDS), _routes),
}
"""By kind: the keys in order, and the rows of one of them."""
