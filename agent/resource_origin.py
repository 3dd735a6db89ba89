"""Where a decision of Istio's comes from: for `ax explain`, made by the Istio agent.  Pure."""

from __future__ import annotations

import msgspec

from appswitch.errors import InvalidInput


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """One xDS resource that a decision comes from."""

    type: str
    """`lds`, `rds`, `cds`, `eds`."""
    name: str
    part: str = ""
    """Of `rds`: the virtual host."""
    weight: int | None = None
    """Of `cds`: its part of the connections, relative to the other clusters'."""
    version: str = ""
    """In force; empty: Istiod gave none, or the resource is held no more (see `note`)."""
    seconds: float | None = None
    """How long it has been there unchanged."""
    object: str = ""
    """Of Istio, as `KIND NAMESPACE/NAME`; empty where Istiod does not say."""
    note: str = ""
    """What is out of the ordinary."""


class OriginEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of one of the clusters, used now or not."""

    address: str
    """`IP:port`, or `NAME:port`."""
    cluster: str
    weight: int
    """Within its cluster and priority."""
    priority: int
    locality: str
    health: str
    """`HEALTHY` or `UNHEALTHY`, as Istiod says it."""


class OriginView(msgspec.Struct, frozen=True, kw_only=True):
    """What a virtual IP and port leads to, and why."""

    sources: list[SourceView]
    """Listener, routes, clusters, endpoints."""
    endpoints: list[OriginEndpoint]

    def by_address(self) -> dict[str, list[OriginEndpoint]]:
        """What stands at each address: it may be an endpoint of several clusters."""
        found: dict[str, list[OriginEndpoint]] = {}
        for endpoint in self.endpoints:
            found.setdefault(endpoint.address, []).append(endpoint)
        return found


_decoder = msgspec.json.Decoder(OriginView | None)


def decode(data: bytes) -> OriginView | None:
    """What the agent answers; None: it knows no such address.  Raises InvalidInput."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"not an origin: {error}") from error
