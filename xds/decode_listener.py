"""Listener.  Raises DecodeError and ValueError: `decode` turns them around."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from appswitch.xds import decode_access, decode_route
from appswitch.xds.leftover import (
    HTTP_MANAGER,
    QUIET_FILTERS,
    QUIET_HTTP,
    TCP_PROXY,
    Leftover,
    fetch_timeout,
    owner,
)
from appswitch.xds.resources import Chain, HttpTarget, Listener, TcpTarget, Weighted

_LISTENER_FIELDS = frozenset(
    {"name", "address", "additional_addresses", "filter_chains", "default_filter_chain"}
    | {"traffic_direction", "listener_filters"}
    # how Envoy itself catches and logs connections
    | {"bind_to_port", "use_original_dst", "listener_filters_timeout", "access_log", "metadata"}
    | {"continue_on_listener_filters_timeout", "max_connections_to_accept_per_socket_event", "stat_prefix"}
    | {
        "enable_reuse_port",
        "tcp_backlog_size",
        "per_connection_buffer_limit_bytes",
        "freebind",
        "transparent",
    }
)
_CHAIN_FIELDS = frozenset(
    {"filters", "filter_chain_match", "name", "metadata", "transport_socket_connect_timeout"}
)
_MATCH_FIELDS = frozenset(
    {"prefix_ranges", "destination_port", "application_protocols", "transport_protocol"}
)
_TCP_FIELDS = frozenset({"cluster", "weighted_clusters", "stat_prefix", "access_log", "access_log_options"})
_QUIET_LISTENER_FILTERS = frozenset(
    f"envoy.filters.listener.{name}" for name in ("http_inspector", "tls_inspector", "original_dst")
)


def listener(value: bytes) -> Listener:
    """Decode a Listener.  Of inbound ones only who may connect is kept."""
    message = listener_pb2.Listener.FromString(value)
    if not message.name:
        raise ValueError("a listener without name")
    left = Leftover(message.name)
    outbound = message.traffic_direction == base_pb2.OUTBOUND
    if not outbound:
        access = decode_access.inbound(message, left)
        return Listener(message.name, (), False, (), None, left.done(), access)
    addresses = tuple(
        address
        for item in (message.address, *(extra.address for extra in message.additional_addresses))
        if (address := _address(item, left)) is not None
    )
    left.fields("listener", message, _LISTENER_FIELDS)
    for item in message.listener_filters:
        if item.name not in _QUIET_LISTENER_FILTERS:
            left.add(f"listener.listener_filters.{item.name}")
    chains = tuple(_chain(item, left) for item in message.filter_chains)
    default = _chain(message.default_filter_chain, left) if message.HasField("default_filter_chain") else None
    if not chains and default is None:
        raise ValueError("no filter chain")
    return Listener(message.name, addresses, True, chains, default, left.done())


def _address(message: Any, left: Leftover) -> tuple[str, int] | None:
    kind = message.WhichOneof("address")
    if kind != "socket_address":
        left.add(f"listener.address.{kind or 'none'}", "the address is left out")
        return None
    socket = message.socket_address
    if socket.protocol != 0:
        left.add("listener.address.protocol", "UDP: the address is left out")
        return None
    parsed = ip_address(socket.address)
    if socket.port_value > 65535:
        raise ValueError(f"port {socket.port_value}")
    if isinstance(parsed, IPv6Address) and not parsed.is_unspecified:
        left.add("listener.address.ipv6", f"{socket.address}: the address is left out")
        return None
    return socket.address, socket.port_value


def _chain(message: Any, left: Leftover) -> Chain:
    left.fields("filter_chain", message, _CHAIN_FIELDS)
    match = message.filter_chain_match
    left.fields("filter_chain_match", match, _MATCH_FIELDS)
    never = any(field.name not in _MATCH_FIELDS for field, _ in match.ListFields())
    prefixes = []
    for item in match.prefix_ranges:
        network = f"{item.address_prefix}/{item.prefix_len.value}"
        if ":" in item.address_prefix:
            IPv6Network(network, strict=False)
        else:
            prefixes.append(IPv4Network(network, strict=False))
    if match.prefix_ranges and not prefixes:
        never = True
        left.add("filter_chain_match.prefix_ranges", "IPv6: the chain is passed over")
    return Chain(
        _target(message, left),
        tuple(prefixes),
        match.destination_port.value,
        bool(match.application_protocols),
        never or match.transport_protocol not in ("", "raw_buffer"),
        owner(message.metadata),
    )


def _target(message: Any, left: Leftover) -> TcpTarget | HttpTarget | None:
    target: TcpTarget | HttpTarget | None = None
    for item in message.filters:
        if item.typed_config.type_url == TCP_PROXY:
            target = _tcp(tcp_proxy_pb2.TcpProxy.FromString(item.typed_config.value), left)
        elif item.typed_config.type_url == HTTP_MANAGER:
            target = _http(_manager(item), left)
        elif item.name not in QUIET_FILTERS:
            left.add(f"filter_chain.filters.{item.name}")
    return target


def _manager(item: Any) -> Any:
    return http_connection_manager_pb2.HttpConnectionManager.FromString(item.typed_config.value)


def _tcp(proxy: Any, left: Leftover) -> TcpTarget:
    left.fields("tcp_proxy", proxy, _TCP_FIELDS)
    if proxy.WhichOneof("cluster_specifier") == "cluster":
        return TcpTarget((Weighted(proxy.cluster, 1),))
    clusters = proxy.weighted_clusters.clusters
    for item in clusters:
        left.fields("tcp_proxy.weighted_clusters", item, frozenset({"name", "weight"}))
    return TcpTarget(tuple(Weighted(item.name, item.weight) for item in clusters))


def _http(manager: Any, left: Leftover) -> HttpTarget:
    for item in manager.http_filters:
        if item.name not in QUIET_HTTP:
            left.add(f"http_connection_manager.http_filters.{item.name}")
    kind = manager.WhichOneof("route_specifier")
    if kind == "rds":
        patience = fetch_timeout(manager.rds.config_source)
        return HttpTarget(manager.rds.route_config_name, fetch_timeout=patience)
    if kind == "route_config":
        inline = decode_route.convert(manager.route_config)
        for item in inline.unsupported:
            left.add(item.field, item.instead, item.resource)
        return HttpTarget("", inline)
    left.add(f"http_connection_manager.{kind or 'no_routes'}")
    return HttpTarget("")
