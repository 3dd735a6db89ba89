"""RouteConfiguration.  Raises DecodeError and ValueError: `decode` turns them around."""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_pb2

from appswitch.xds.leftover import Leftover, owner
from appswitch.xds.resources import Route, RouteConfig, VirtualHost, Weighted

_CONFIG_FIELDS = frozenset(
    {"name", "virtual_hosts", "validate_clusters", "max_direct_response_body_size_bytes"}
    | {"ignore_port_in_host_matching", "ignore_path_parameters_in_path_matching"}
)
_HOST_FIELDS = frozenset({"name", "domains", "routes", "include_request_attempt_count", "metadata"})
_ROUTE_FIELDS = frozenset({"match", "route", "name", "decorator", "metadata", "tracing", "stat_prefix"}) | {
    "typed_per_filter_config"  # looked at one by one
}
_ACTION_FIELDS = frozenset(
    {"cluster", "weighted_clusters", "timeout", "max_grpc_timeout", "max_stream_duration"}
    | {"cluster_not_found_response_code", "priority"}
)
_QUIET_HOSTS = frozenset({"allow_any", "block_all"})
"""Istio's own, for all other names: they say the outbound policy, which the translation reports."""
_WEIGHT_FIELDS = frozenset({"name", "weight", "metadata_match"})


def route_config(value: bytes) -> RouteConfig:
    """Decode a RouteConfiguration."""
    message = route_pb2.RouteConfiguration.FromString(value)
    if not message.name:
        raise ValueError("a route configuration without name")
    return convert(message)


def convert(message: Any) -> RouteConfig:
    """The same from a message that is already open (inline in a listener)."""
    left = Leftover(message.name)
    left.fields("route_config", message, _CONFIG_FIELDS)
    seen: set[str] = set()
    hosts = []
    for host in message.virtual_hosts:
        if not host.domains:
            raise ValueError(f"virtual host {host.name!r} has no domains")
        for domain in host.domains:
            if domain.lower() in seen:
                raise ValueError(f"domain {domain!r} stands in two virtual hosts")
            seen.add(domain.lower())
        if host.name in _QUIET_HOSTS:
            continue
        left.owner = owner(host.metadata)
        left.fields("virtual_host", host, _HOST_FIELDS, host.name)
        routes = tuple(_route(item, left, host.name) for item in host.routes)
        hosts.append(VirtualHost(host.name, tuple(host.domains), routes))
    return RouteConfig(message.name, tuple(hosts), left.done())


def _route(message: Any, left: Leftover, within: str) -> Route:
    left.owner = owner(message.metadata)
    left.fields("route", message, _ROUTE_FIELDS, within)
    for key in message.typed_per_filter_config:
        left.add(f"route.typed_per_filter_config.{key}", within=within)
    catch_all = _catch_all(message.match, left, within)
    match = _words(message.match)
    if message.WhichOneof("action") != "route":
        # direct_response, redirect: reported as a field of the route
        return Route(catch_all, (), match, left.owner)
    action = message.route
    left.fields("route.route", action, _ACTION_FIELDS, within)
    if action.HasField("timeout") and (action.timeout.seconds or action.timeout.nanos):
        left.add("route.route.timeout", within=within)
    return Route(catch_all, _clusters(action, left, within), match, left.owner)


def _clusters(action: Any, left: Leftover, within: str) -> tuple[Weighted, ...]:
    kind = action.WhichOneof("cluster_specifier")
    if kind == "cluster":
        return (Weighted(action.cluster, 1),)
    if kind == "weighted_clusters":
        left.fields("weighted_clusters", action.weighted_clusters, frozenset({"clusters"}), within)
        for item in action.weighted_clusters.clusters:
            left.fields("weighted_clusters.clusters", item, _WEIGHT_FIELDS, within)
        return tuple(Weighted(item.name, item.weight.value) for item in action.weighted_clusters.clusters)
    return ()  # by header or by plugin (reported as a field), or nowhere: Istio's block_all


def _catch_all(match: Any, left: Leftover, within: str) -> bool:
    """Whether a RouteMatch takes everything; each condition that makes it not so is reported."""
    everything = True
    for descriptor, value in match.ListFields():
        name = descriptor.name
        if name == "case_sensitive" or (name == "prefix" and value in ("", "/")):
            continue
        if name == "safe_regex" and value.regex in (".*", "/.*"):
            continue
        everything = False
        left.add(f"route.match.{name}", "the route is passed over", within)
    return everything


def _words(match: Any) -> str:
    """A RouteMatch for people: the path, and what else is looked at."""
    kind = match.WhichOneof("path_specifier") or ""
    match kind:
        case "prefix":
            text = f"{match.prefix or '/'}*"
        case "path_separated_prefix":
            text = f"{match.path_separated_prefix}[/*]"
        case "path":
            text = match.path
        case "safe_regex":
            text = f"regex {match.safe_regex.regex}"
        case _:
            text = kind
    others = sorted({field.name for field, _ in match.ListFields()} - {kind, "case_sensitive"})
    return f"{text} with {', '.join(others)}" if others else str(text)
