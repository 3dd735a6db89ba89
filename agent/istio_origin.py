"""What a decision of Istio's comes from, for `ax explain`: from a row back to resources.  Pure."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import cast

from appswitch.agent.istio_inventory import Types, age, health, place_text
from appswitch.agent.resource_origin import OriginEndpoint, OriginView, SourceView
from appswitch.xds.chains import bare_name
from appswitch.xds.resolution import resolved
from appswitch.xds.resources import (
    CDS,
    EDS,
    LDS,
    RDS,
    SHORT,
    Assignment,
    Discovery,
    HttpTarget,
    Listener,
    Resource,
    RouteConfig,
    TcpTarget,
)
from appswitch.xds.rows import Row
from appswitch.xds.status import version
from appswitch.xds.translate import Translator


def origin(
    translator: Translator, types: Types, address: IPv4Address, port: int, now: float
) -> OriginView | None:
    """Of what leads from a virtual IP and port; None: nothing of Istio's does."""
    row = translator.row(address, port)
    if row is None:
        return None
    listener = cast("Listener | None", types[LDS].resources.get(row.listener))
    sources = [_source(types, LDS, row.listener, now, object=_tcp_object(listener, row))]
    if listener is not None and row.vhost:
        sources += _routes(types, listener, row, now)
    endpoints: list[OriginEndpoint] = []
    for part in row.clusters:
        behind = translator.behind(part.cluster)
        if behind is None:
            note = "it does not exist: no connection goes there"
            sources.append(SourceView(type="cds", name=part.cluster, weight=part.weight, note=note))
            continue
        cluster = behind.cluster
        sources.append(
            _source(types, CDS, cluster.name, now, cluster, weight=part.weight, object=cluster.object)
        )
        if cluster.discovery is Discovery.EDS:
            sources.append(_source(types, EDS, cluster.eds_name, now, behind.assignment))
        # Of host names their addresses: what stands behind is looked for by these.
        endpoints += _endpoints(cluster.name, resolved(behind.assignment, behind.answers))
    return OriginView(sources=sources, endpoints=endpoints)


def _source(
    types: Types,
    url: str,
    name: str,
    now: float,
    used: Resource | None = None,
    *,
    part: str = "",
    weight: int | None = None,
    object: str = "",
) -> SourceView:
    """`used`: what the row was made from, if it may be another than what is held (make before break)."""
    state = types[url]
    held = state.resources.get(name)
    if held is None or (used is not None and held is not used):
        note = "removed; used until nothing names it" if held is None else "the one before; the new one waits"
        return SourceView(type=SHORT[url], name=name, part=part, weight=weight, object=object, note=note)
    return SourceView(
        type=SHORT[url],
        name=name,
        part=part,
        weight=weight,
        version=version(state, name),
        seconds=age(state.since.get(name), now),
        object=object,
    )


def _tcp_object(listener: Listener | None, row: Row) -> str:
    """The Istio object of the filter chain that a row without virtual host was made from."""
    if listener is None or row.vhost:
        return ""
    for chain in (*listener.chains, listener.default):
        if chain is not None and isinstance(chain.target, TcpTarget) and row.led_by(chain.target.clusters):
            return chain.object
    return ""


def _routes(types: Types, listener: Listener, row: Row, now: float) -> list[SourceView]:
    """The virtual host that a row comes from; inline routes are the listener's."""
    for chain in (*listener.chains, listener.default):
        if chain is None or not isinstance(chain.target, HttpTarget):
            continue
        name = chain.target.route_config
        held = cast("RouteConfig | None", types[RDS].resources.get(name))
        for host in (chain.target.inline or held or RouteConfig("", ())).hosts:
            if bare_name(host) != row.vhost:
                continue
            made_for = next((route.object for route in host.routes if route.catch_all), "")
            if chain.target.inline is None:
                return [_source(types, RDS, name, now, part=host.name, object=made_for)]
            return [_source(types, LDS, listener.name, now, part=host.name, object=made_for)]
    return []


def _endpoints(cluster: str, assignment: Assignment) -> list[OriginEndpoint]:
    return [
        OriginEndpoint(
            address=f"{endpoint.ip or endpoint.host}:{endpoint.port}",
            cluster=cluster,
            weight=endpoint.weight,
            priority=locality.priority,
            locality=place_text(locality.place),
            health=health(endpoint),
        )
        for locality in assignment.localities
        for endpoint in locality.endpoints
    ]
