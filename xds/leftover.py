"""Finds what a message asks for beside the fields that are honoured or mean nothing to a connection."""

from __future__ import annotations

from typing import Any

from appswitch.xds.resources import FETCH_TIMEOUT, Unsupported

TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
QUIET_FILTERS = frozenset(
    {"istio.metadata_exchange", "istio.stats", "envoy.filters.network.metadata_exchange", "istio_stats"}
)
QUIET_HTTP = frozenset(
    {"istio.metadata_exchange", "istio.alpn", "istio.stats", "envoy.filters.http.grpc_stats"}
    | {"envoy.filters.http.fault", "envoy.filters.http.cors", "envoy.filters.http.router"}
)
"""Istio puts these, doing nothing, into every connection manager; faults and CORS come with the routes."""


def owner(metadata: Any) -> str:
    """The Istio object that a resource was made from, as `KIND NAMESPACE/NAME`, or "".

    Istiod writes `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME` (filter_metadata `istio`, `config`).
    """
    if "istio" not in metadata.filter_metadata:
        return ""
    fields = metadata.filter_metadata["istio"].fields
    parts = fields["config"].string_value.split("/") if "config" in fields else []
    return f"{parts[6]} {parts[5]}/{parts[7]}" if len(parts) == 8 and parts[4] == "namespaces" else ""


class Leftover:
    """Collects the unsupported fields of one resource."""

    def __init__(self, resource: str, owner: str = "") -> None:
        """`resource` is the name under which they are reported."""
        self._resource = resource
        self.owner = owner
        """The Istio object of what is looked at."""
        self._found: dict[Unsupported, None] = {}

    def add(self, field: str, instead: str = "", within: str = "") -> None:
        """Report one field; `within` names a part of the resource."""
        resource = f"{self._resource}/{within}" if within else self._resource
        self._found[Unsupported(field, resource, instead, self.owner)] = None

    def fields(self, prefix: str, message: Any, known: frozenset[str], within: str = "") -> None:
        """Report every field that is set in `message` and not in `known`."""
        for descriptor, _ in message.ListFields():
            if descriptor.name not in known:
                self.add(f"{prefix}.{descriptor.name}", within=within)

    def done(self) -> tuple[Unsupported, ...]:
        """All of them, each once, in the order found."""
        return tuple(self._found)


def seconds(duration: Any) -> float:
    """A google.protobuf.Duration as seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def fetch_timeout(source: Any) -> float:
    """Seconds for which a ConfigSource wants its resource to be waited for; 0 there means for ever."""
    if not source.HasField("initial_fetch_timeout"):
        return FETCH_TIMEOUT
    wanted = seconds(source.initial_fetch_timeout)
    return wanted if wanted > 0 else float("inf")
