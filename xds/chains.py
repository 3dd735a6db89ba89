"""Which filter chain of a listener a plain connection takes."""

from __future__ import annotations

from ipaddress import IPv4Address

from appswitch.xds.resources import HttpTarget, Listener, TcpTarget, VirtualHost, Weighted


def choose(listener: Listener, address: IPv4Address, port: int) -> tuple[TcpTarget | None, HttpTarget | None]:
    """The chains that take a plain connection: as TCP, and as what is sniffed as HTTP."""
    open_chains = [chain for chain in listener.chains if not chain.never and chain.port in (0, port)]
    matching = [
        (max((network.prefixlen for network in chain.prefixes if address in network), default=-1), chain)
        for chain in open_chains
    ]
    best = max((length for length, chain in matching if length >= 0 or not chain.prefixes), default=-1)
    chosen = [chain for length, chain in matching if length == best and (length >= 0 or not chain.prefixes)]
    tcp = next((chain.target for chain in chosen if isinstance(chain.target, TcpTarget)), None)
    http = next((chain.target for chain in chosen if isinstance(chain.target, HttpTarget)), None)
    default = listener.default.target if listener.default is not None else None
    if tcp is None and isinstance(default, TcpTarget) and all(chain.detected for chain in chosen):
        tcp = default
    if http is None and tcp is None and isinstance(default, HttpTarget):
        http = default
    return tcp, http


def shares(clusters: tuple[Weighted, ...]) -> dict[str, float]:
    """Each cluster's share of the connections, 0 to 1."""
    total = sum(part.weight for part in clusters) or 1
    return {part.cluster: part.weight / total for part in clusters if part.weight}


def catch_all(host: VirtualHost) -> tuple[Weighted, ...] | None:
    """Where the first route that takes every request leads; None: there is none."""
    return next((route.clusters for route in host.routes if route.catch_all), None)


def bare_name(host: VirtualHost) -> str:
    """A virtual host's name without its port."""
    name, colon, port = host.name.rpartition(":")
    return name if colon and port.isdigit() else host.name
