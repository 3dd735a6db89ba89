"""Cluster and ClusterLoadAssignment.  Raises DecodeError and ValueError: `decode` turns them around."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2

from appswitch.xds.leftover import Leftover, fetch_timeout, owner, seconds
from appswitch.xds.resources import (
    BLACKHOLE,
    DNS_REFRESH,
    PASSTHROUGH,
    Assignment,
    Balance,
    Cluster,
    Discovery,
    Endpoint,
    Locality,
    Refresh,
)

_CLUSTER_FIELDS = frozenset(
    {"name", "type", "eds_cluster_config", "load_assignment", "lb_policy", "common_lb_config"}
    | {"connect_timeout"}
    | {"alt_stat_name", "metadata", "circuit_breakers", "filters", "transport_socket_matches"}
    # HTTP between Envoys
    | {"typed_extension_protocol_options", "cleanup_interval", "observability_name"}
    | {"dns_refresh_rate", "dns_lookup_family", "respect_dns_ttl", "dns_jitter", "dns_failure_refresh_rate"}
    | {"typed_dns_resolver_config"}
)
_LB_FIELDS = frozenset({"healthy_panic_threshold", "locality_weighted_lb_config"})
_QUIET_FILTERS = frozenset({"istio.metadata_exchange", "envoy.filters.network.metadata_exchange"})
_LOCALITY_FIELDS = frozenset({"locality", "lb_endpoints", "load_balancing_weight", "priority"})
_ENDPOINT_FIELDS = frozenset({"address"})
_LB_ENDPOINT_FIELDS = frozenset({"endpoint", "health_status", "load_balancing_weight", "metadata"})
_BUILT_IN = frozenset({"InboundPassthroughCluster", PASSTHROUGH, BLACKHOLE})
_BY_NAME = frozenset({Discovery.STRICT_DNS, Discovery.LOGICAL_DNS})
"""Kinds whose endpoints are host names."""
_CARES = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
_NO_LIMIT = 4294967295
_APPROXIMATED = {
    Balance.LEAST_REQUEST: "Random: the live connections are not counted",
    Balance.RING_HASH: "Random",
    Balance.MAGLEV: "Random",
    Balance.TYPED_EXTENSION: "Random",
}
_USABLE = frozenset({health_check_pb2.UNKNOWN, health_check_pb2.HEALTHY})


def cluster(value: bytes) -> Cluster:
    """Decode a Cluster.  An inbound one (about this node's own servers) is kept by name only."""
    message = cluster_pb2.Cluster.FromString(value)
    if not message.name:
        raise ValueError("a cluster without name")
    discovery = _discovery(message)
    if message.name.startswith("inbound|") or message.name in _BUILT_IN:
        return Cluster(message.name, discovery)
    left = Leftover(message.name, owner(message.metadata))
    left.fields("cluster", message, _CLUSTER_FIELDS)
    timeout = message.connect_timeout
    if timeout.seconds or timeout.nanos:
        left.add("cluster.connect_timeout", f"the kernel's instead of {seconds(timeout):g} s")
    common = message.common_lb_config
    left.fields("cluster.common_lb_config", common, _LB_FIELDS)
    for item in message.filters:
        if item.name not in _QUIET_FILTERS:
            left.add(f"cluster.filters.{item.name}")
    for threshold in message.circuit_breakers.thresholds:
        for descriptor, limit in threshold.ListFields():
            number = getattr(limit, "value", limit)
            if descriptor.name.startswith("max_") and number != _NO_LIMIT:
                left.add(f"cluster.circuit_breakers.{descriptor.name}", f"no limit instead of {number}")
    balance = _balance(message.lb_policy)
    if balance in _APPROXIMATED and discovery is not Discovery.ORIGINAL_DST:
        left.add("cluster.lb_policy", f"{balance.name}: {_APPROXIMATED[balance]}")
    refresh = _refresh(message, left) if discovery in _BY_NAME else None
    inline = None
    if message.HasField("load_assignment"):
        inline = _assignment(message.load_assignment, message.name, by_name=refresh is not None)
    if discovery is Discovery.LOGICAL_DNS and (inline is None or _size(inline) != 1):
        raise ValueError("a LOGICAL_DNS cluster must have one endpoint")
    panic = common.healthy_panic_threshold.value if common.HasField("healthy_panic_threshold") else 50.0
    eds_name = message.eds_cluster_config.service_name or message.name if discovery is Discovery.EDS else ""
    return Cluster(
        message.name,
        discovery,
        eds_name,
        balance,
        common.HasField("locality_weighted_lb_config"),
        panic,
        inline,
        left.done() + (inline.unsupported if inline else ()),
        fetch_timeout(message.eds_cluster_config.eds_config),
        refresh,
        left.owner,
    )


def _discovery(message: Any) -> Discovery:
    if message.HasField("cluster_type"):
        return Discovery.CUSTOM
    return Discovery(message.type)


def _refresh(message: Any, left: Leftover) -> Refresh:
    """How a DNS cluster's names are kept up to date."""
    if message.dns_lookup_family == cluster_pb2.Cluster.V6_ONLY:
        left.add("cluster.dns_lookup_family", "IPv4 addresses instead of IPv6 ones")
    resolver = message.typed_dns_resolver_config
    if resolver.typed_config.type_url not in ("", _CARES) or _own_servers(resolver.typed_config):
        left.add("cluster.typed_dns_resolver_config", "this node's name servers are asked")
    interval = _interval(message, "dns_refresh_rate", DNS_REFRESH)
    failure = (interval, interval)
    if message.HasField("dns_failure_refresh_rate"):
        rate = message.dns_failure_refresh_rate
        first = _interval(rate, "base_interval", interval)
        failure = (first, max(first, _interval(rate, "max_interval", 10 * first)))
    jitter = max(0.0, seconds(message.dns_jitter))
    return Refresh(interval, message.respect_dns_ttl, jitter, failure)


def _interval(message: Any, field: str, default: float) -> float:
    """A positive duration."""
    if not message.HasField(field):
        return default
    value = seconds(getattr(message, field))
    if value <= 0:
        raise ValueError(f"{field} {value:g} s is not above 0")
    return value


def _own_servers(config: Any) -> bool:
    if config.type_url != _CARES:
        return False
    own = cares_dns_resolver_pb2.CaresDnsResolverConfig.FromString(config.value)
    return bool(own.resolvers) and not own.use_resolvers_as_fallback


def _size(assignment: Assignment) -> int:
    return sum(len(locality.endpoints) for locality in assignment.localities)


def _balance(number: int) -> Balance:
    return Balance(number)


def assignment(value: bytes) -> Assignment:
    """Decode a ClusterLoadAssignment."""
    message = endpoint_pb2.ClusterLoadAssignment.FromString(value)
    if not message.cluster_name:
        raise ValueError("an assignment without cluster name")
    return _assignment(message, message.cluster_name, by_name=False)


def _assignment(message: Any, name: str, *, by_name: bool) -> Assignment:
    """`by_name`: host names stand for addresses, as in DNS clusters."""
    left = Leftover(name)
    left.fields("assignment", message, frozenset({"cluster_name", "endpoints", "policy"}))
    left.fields("assignment.policy", message.policy, frozenset({"overprovisioning_factor"}))
    localities = tuple(_locality(item, left, by_name) for item in message.endpoints)
    tls = sum(_tls_mode(item) for locality in message.endpoints for item in locality.lb_endpoints)
    if tls:
        left.add("endpoint.metadata.tlsMode", f"{tls} of a sidecar are dialled in plaintext")
    factor = message.policy.overprovisioning_factor.value or 140
    return Assignment(name, localities, factor, left.done())


def _locality(message: Any, left: Leftover, by_name: bool) -> Locality:
    left.fields("locality", message, _LOCALITY_FIELDS)
    if message.priority > 128:
        raise ValueError(f"priority {message.priority} is above 128")
    place = (message.locality.region, message.locality.zone, message.locality.sub_zone)
    endpoints = tuple(
        endpoint for item in message.lb_endpoints if (endpoint := _endpoint(item, left, by_name)) is not None
    )
    return Locality(place, message.priority, message.load_balancing_weight.value, endpoints)


def _endpoint(message: Any, left: Leftover, by_name: bool) -> Endpoint | None:
    """None where there is no IP address and port to dial."""
    left.fields("endpoint", message, _LB_ENDPOINT_FIELDS)
    endpoint = message.endpoint
    left.fields("endpoint", endpoint, _ENDPOINT_FIELDS)
    kind = endpoint.address.WhichOneof("address")
    if kind != "socket_address":
        left.add(f"endpoint.address.{kind or 'none'}", "the endpoint is left out")
        return None
    host, port = endpoint.address.socket_address.address, endpoint.address.socket_address.port_value
    if not 0 < port < 65536:
        raise ValueError(f"endpoint {host}: port {port} is not in 1..65535")
    weight = message.load_balancing_weight.value if message.HasField("load_balancing_weight") else 1
    if weight == 0:
        raise ValueError(f"endpoint {host}:{port}: weight 0")
    healthy = message.health_status in _USABLE
    return Endpoint(host, _ip(host, left, by_name), port, weight, healthy)


@lru_cache(maxsize=1 << 16)
def _ipv4(host: str) -> IPv4Address | None:
    """Parsing takes half of the time of an assignment, and an address stands in many of them."""
    try:
        return IPv4Address(host)
    except AddressValueError:
        return None


def _ip(host: str, left: Leftover, by_name: bool) -> IPv4Address | None:
    if (address := _ipv4(host)) is not None:
        return address
    try:
        IPv6Address(host)
    except AddressValueError:
        if not by_name:
            raise ValueError(f"endpoint {host!r} is no IP address") from None
    else:
        left.add("endpoint.address.ipv6", f"{host}: the endpoint is left out")
    return None


def _tls_mode(message: Any) -> bool:
    """Whether a sidecar behind it may ask for mutual TLS."""
    match = message.metadata.filter_metadata.get("envoy.transport_socket_match")
    mode = match.fields["tlsMode"].string_value if match is not None and "tlsMode" in match.fields else ""
    return mode not in ("", "disabled")
