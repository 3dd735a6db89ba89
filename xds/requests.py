"""The bytes of discovery requests, built with envoy-data-plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from envoy_data_plane.envoy.config.core.v3 import Locality, Node
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from envoy_data_plane.google.protobuf import Struct, Value
from envoy_data_plane.google.rpc import Status

from appswitch.errors import UsageError
from appswitch.xds.ads import Send, SendDelta

INVALID_ARGUMENT = 3
"""google.rpc.Code of a rejected response."""

FEATURES = (
    "xds.config.supports-resource-ttl",
    # Resources in their wrapper, in the state of the world: the name in xds_protocol, and gRPC's.
    "xds.config.supports-resource-in-sotw",
    "xds.config.resource-in-sotw",
)
"""What a server may count on (Node.client_features)."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """As whom this client asks: Istiod computes the configuration for this workload."""

    id: str
    """`sidecar~IP~NAME.NAMESPACE~DOMAIN`."""
    metadata: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    """Over the defaults.  Istiod wants text throughout (switches: "true", "false"), LABELS an object."""
    locality: tuple[str, str, str] = ("", "", "")
    """Region, zone, sub-zone."""

    def __post_init__(self) -> None:
        """Raises UsageError: Istiod would end each stream with InvalidArgument."""
        parts = self.id.split("~")
        if len(parts) != 4 or not all(parts) or "." not in parts[2]:
            raise UsageError(f"Istio node id {self.id!r}: it must be sidecar~IP~NAME.NAMESPACE~DOMAIN")

    @property
    def ip(self) -> str:
        """The workload's address."""
        return self.id.split("~")[1]

    @property
    def addresses(self) -> tuple[IPv4Address, ...]:
        """All of the workload's (INSTANCE_IPS) that are IPv4."""
        listed = self.metadata.get("INSTANCE_IPS", self.ip)
        found = []
        for text in (self.ip, *(listed.split(",") if isinstance(listed, str) else ())):
            try:
                found.append(IPv4Address(text.strip()))
            except ValueError:
                pass  # IPv6, or no address: nobody's here
        return tuple(dict.fromkeys(found))

    @property
    def namespace(self) -> str:
        """The workload's namespace."""
        return self.id.split("~")[2].rpartition(".")[2]

    @property
    def domain(self) -> str:
        """The DNS domain of the mesh without the namespace, e.g. `svc.cluster.local`."""
        return self.id.split("~")[3].removeprefix(f"{self.namespace}.")


def build_node(info: NodeInfo) -> Node:
    """The Node of a stream's first request."""
    metadata: dict[str, str | Mapping[str, str]] = {
        "NAMESPACE": info.namespace,
        "CLUSTER_ID": "Kubernetes",
        "INSTANCE_IPS": info.ip,
        "INTERCEPTION_MODE": "REDIRECT",
        "DNS_CAPTURE": "true",
        "DISABLE_HBONE_SEND": "true",
        "MESH_ID": "cluster.local",
        **info.metadata,
    }
    region, zone, sub_zone = info.locality
    return Node(
        id=info.id,
        cluster=info.id.split("~")[2],
        metadata=_struct(metadata),
        locality=Locality(region=region, zone=zone, sub_zone=sub_zone) if any(info.locality) else None,
        user_agent_name="appswitch",
        client_features=list(FEATURES),
    )


def _struct(values: Mapping[str, str | Mapping[str, str]]) -> Struct:
    return Struct(
        fields={
            key: Value(string_value=value) if isinstance(value, str) else Value(struct_value=_struct(value))
            for key, value in values.items()
        }
    )


def encode(command: Send | SendDelta, info: NodeInfo) -> bytes:
    """The bytes of a request; the node rides on the first of a stream only."""
    node = build_node(info) if command.first else None
    detail = Status(code=INVALID_ARGUMENT, message=command.error) if command.error else None
    if isinstance(command, SendDelta):
        return bytes(
            DeltaDiscoveryRequest(
                node=node,
                type_url=command.type_url,
                resource_names_subscribe=list(command.subscribe),
                resource_names_unsubscribe=list(command.unsubscribe),
                initial_resource_versions=dict(command.versions),
                response_nonce=command.nonce,
                error_detail=detail,
            )
        )
    return bytes(
        DiscoveryRequest(
            version_info=command.version,
            node=node,
            resource_names=list(command.names),
            type_url=command.type_url,
            response_nonce=command.nonce,
            error_detail=detail,
        )
    )
