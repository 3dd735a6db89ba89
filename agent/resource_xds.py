"""What REST answers and `ax get xds|clusters|…` shows of Istio's configuration.  Pure."""

from __future__ import annotations

import msgspec


class XdsView(msgspec.Struct, frozen=True, kw_only=True):
    """How one resource stands with Istiod."""

    type: str
    """`cds`, `eds`, `lds`, `rds`, `nds`."""
    name: str
    """Empty: the name table."""
    status: str
    """As in the client status API: `REQUESTED`, `ACKED`, `NACKED`, `DOES_NOT_EXIST`, `RECEIVED_ERROR`."""
    version: str
    """In force; empty: none is, or Istiod gives none."""
    seconds: float | None
    """How long what is in force has been there unchanged; null: nothing is in force."""
    error: str
    """Why the last one was not taken or not sent."""
    error_version: str
    """Of what was not taken."""
    error_seconds: float | None
    """How long ago that was."""


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """One Cluster."""

    name: str
    service_fqdn: str
    """From the name, `DIRECTION|PORT|SUBSET|FQDN`; where it has no such form: all of it."""
    port: int
    """0: the name has none."""
    subset: str
    direction: str
    """`outbound`, `inbound`, or empty."""
    type: str
    """`EDS`, `STATIC`, `STRICT_DNS`, `LOGICAL_DNS`, `ORIGINAL_DST`, `CUSTOM`."""
    policy: str
    """lb_policy."""
    object: str
    """Of Istio, as `KIND NAMESPACE/NAME`; empty where Istiod does not say."""
    version: str
    seconds: float | None


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of one cluster."""

    endpoint: str
    """`IP:port`; of DNS clusters `NAME:port`."""
    status: str
    """As Istiod says it: `HEALTHY` (or unknown), `UNHEALTHY` (degraded and draining ones, too)."""
    cluster: str
    weight: int
    priority: int
    """0 is used first."""
    locality: str
    """`region/zone/sub-zone`, as far as there are; may be empty."""
    locality_weight: int
    """Counts where the cluster balances by localities; 0 takes it out there."""
    version: str
    seconds: float | None


class ListenerView(msgspec.Struct, frozen=True, kw_only=True):
    """One filter chain of one listener, at one of its addresses."""

    name: str
    address: str
    """Empty: of inbound listeners no address is kept."""
    port: int
    match: str
    """When the chain is chosen: `ALL`, or its conditions."""
    destination: str
    """`Cluster: NAME`, `Route: NAME`, …"""
    object: str
    """Of Istio, as `KIND NAMESPACE/NAME`; empty where Istiod does not say."""
    version: str
    seconds: float | None


class ShareView(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster's part of the connections."""

    cluster: str
    weight: int


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """One route of one virtual host."""

    name: str
    """Of the RouteConfiguration."""
    vhost: str
    domains: list[str]
    match: str
    """`/*`, `/login`, …; `with headers` and the like for what else it looks at."""
    catch_all: bool
    """It takes every request: connections go by the first one that does."""
    clusters: list[ShareView]
    """Empty: it answers by itself or redirects."""
    object: str
    """Of Istio, as `KIND NAMESPACE/NAME`; empty where Istiod does not say."""
    version: str
    seconds: float | None
