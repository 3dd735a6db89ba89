"""The resources that the scripts are about."""

from __future__ import annotations

from dataclasses import replace

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from appswitch.xds.make import assignment, cluster, http_listener, routes, tcp_listener
from appswitch.xds.resources import RawResource

VIP, OTHER, WEB = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:8080"
"""Of the listeners for cluster `a` and `b`, and of the virtual host `web`."""
A1, A2, B1, B2 = "10.1.0.1:8080", "10.1.0.2:8080", "10.2.0.1:8080", "10.2.0.2:8080"
"""Endpoints: two of `a`, two of `b`."""

UNKNOWN_FILTER = "example.v1.Filter"
UNKNOWN_FIELD = b"\xc0\x3e\x01"
"""Field 1000 with the number 1: at the end of any message."""


def listener(target: str, name: str) -> RawResource:
    """A TCP listener at VIP:port for one cluster."""
    address, _, port = target.rpartition(":")
    return tcp_listener(address, int(port), **{name: 1})


ONE = (cluster("a"), assignment("a", A1), listener(VIP, "a"))
"""A cluster and a listener."""
TWO = (*ONE, cluster("b"), assignment("b", B1), listener(OTHER, "b"))
"""Two of each."""
HTTP = (*ONE, http_listener(8080, "8080"), routes("8080", web=("10.0.0.3", "a")))
"""With a route configuration that leads to the cluster, too."""


def slow(name: str, seconds: int) -> RawResource:
    """A cluster that waits only so long for its endpoints."""
    timeout = {"seconds": seconds}
    return cluster(name, eds_cluster_config={"eds_config": {"initial_fetch_timeout": timeout}})


def with_unknown_filter(raw: RawResource) -> RawResource:
    """A listener whose first filter is an extension that no client knows."""
    message = listener_pb2.Listener.FromString(raw.value)
    unknown = listener_components_pb2.Filter(name="example.unknown")
    unknown.typed_config.type_url = f"type.googleapis.com/{UNKNOWN_FILTER}"
    for chain in message.filter_chains:
        known = list(chain.filters)
        del chain.filters[:]
        chain.filters.extend((unknown, *known))
    return replace(raw, value=message.SerializeToString())


def broken(raw: RawResource) -> RawResource:
    """The same, its last byte missing: its name can be read, the whole cannot be decoded."""
    return replace(raw, value=raw.value[:-1])
