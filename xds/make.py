"""Makes xDS resources and responses of the same shapes as Istiod's: for the conformance suite, and tests."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from appswitch.xds.proto import nds_pb2
from appswitch.xds.resources import CDS, EDS, LDS, NDS, RDS, RawResource, Response


def response(version: str, *resources: RawResource, of: str = "") -> Response:
    """A response whose nonce is `n` and its version; `of`: the type where there are no resources."""
    return Response(of or resources[0].type_url, version, f"n{version}", resources)


def cluster(name: str, **fields: Any) -> RawResource:
    """An EDS cluster; `fields` as of the proto."""
    message = cluster_pb2.Cluster(name=name, **{"type": 3, **fields})
    if message.type == cluster_pb2.Cluster.EDS:
        _by_ads(message.eds_cluster_config.eds_config)
    return RawResource(CDS, message.SerializeToString())


def dns_cluster(name: str, *addresses: str, logical: bool = False, **fields: Any) -> RawResource:
    """A cluster whose endpoints are `HOST:PORT` or `HOST:PORT/WEIGHT`."""
    inline = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    inline.endpoints.add().lb_endpoints.extend(endpoint(text) for text in addresses)
    return cluster(name, type=2 if logical else 1, load_assignment=inline, **fields)


def assignment(name: str, *addresses: str, **fields: Any) -> RawResource:
    """Endpoints `IP:PORT` or `IP:PORT/WEIGHT`, all healthy and in one place."""
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name, **fields)
    if addresses:
        message.endpoints.add().lb_endpoints.extend(endpoint(text) for text in addresses)
    return RawResource(EDS, message.SerializeToString())


def endpoint(text: str, health: int = 0) -> Any:
    """One LbEndpoint."""
    address, _, weight = text.partition("/")
    host, _, port = address.rpartition(":")
    message = endpoint_components_pb2.LbEndpoint(health_status=health)
    message.endpoint.address.socket_address.address = host
    message.endpoint.address.socket_address.port_value = int(port)
    if weight:
        message.load_balancing_weight.value = int(weight)
    return message


def tcp_listener(address: str, port: int, **clusters: int) -> RawResource:
    """`VIP_port` with a TCP proxy to one cluster, or to several by weight."""
    message = _listener(address, port)
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix="tcp")
    if len(clusters) == 1:
        proxy.cluster = next(iter(clusters))
    else:
        for name, weight in clusters.items():
            proxy.weighted_clusters.clusters.add(name=name, weight=weight)
    message.filter_chains.add().filters.add(name="tcp").typed_config.Pack(proxy)
    return RawResource(LDS, message.SerializeToString())


def http_listener(port: int, routes: str) -> RawResource:
    """`0.0.0.0_port` with routes by RDS; what is not HTTP passes through."""
    message = _listener("0.0.0.0", port)
    manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix="http")
    manager.rds.route_config_name = routes
    _by_ads(manager.rds.config_source)
    manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(router_pb2.Router())
    chain = message.filter_chains.add()
    chain.filter_chain_match.application_protocols.extend(("http/1.1", "h2c"))
    chain.filters.add(name="http").typed_config.Pack(manager)
    passthrough = tcp_proxy_pb2.TcpProxy(stat_prefix="tcp", cluster="PassthroughCluster")
    message.default_filter_chain.filters.add(name="tcp").typed_config.Pack(passthrough)
    return RawResource(LDS, message.SerializeToString())


def _by_ads(source: Any) -> None:
    """Envoy wants to be told that a resource comes by the same stream."""
    source.ads.SetInParent()
    source.resource_api_version = config_source_pb2.V3


def _listener(address: str, port: int) -> Any:
    message = listener_pb2.Listener(name=f"{address}_{port}", traffic_direction=base_pb2.OUTBOUND)
    message.address.socket_address.address = address
    message.address.socket_address.port_value = port
    message.bind_to_port.value = False
    return message


def routes(name: str, **hosts: tuple[str, str]) -> RawResource:
    """Virtual hosts `NAME=(VIP, cluster)`, each with one catch-all route."""
    message = route_pb2.RouteConfiguration(name=name)
    for host, (vip, target) in hosts.items():
        virtual = message.virtual_hosts.add(name=f"{host}:{name}", domains=[host, vip])
        route = virtual.routes.add()
        route.match.prefix = "/"
        route.route.cluster = target
    return RawResource(RDS, message.SerializeToString())


def name_table(**hosts: str) -> RawResource:
    """Names with one address each."""
    message = vars(nds_pb2)["NameTable"]()
    for host, address in hosts.items():
        message.table[host].ips.append(address)
    return RawResource(NDS, message.SerializeToString())
