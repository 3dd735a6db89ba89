"""From Istio's name table to the names that DNS answers."""

from __future__ import annotations

from ipaddress import IPv4Address

from appswitch.xds.resources import Name, NameTable

Names = tuple[tuple[str, tuple[IPv4Address, ...]], ...]


def answers(table: NameTable | None, namespace: str, domain: str) -> Names:
    """Every name with its addresses; Kubernetes services also by their short names.

    The short ones are those of Istio's own DNS proxy: `name.ns.svc`, `name.ns`, and `name` within
    the asking workload's own namespace.  `domain` is e.g. `svc.cluster.local`.
    """
    if table is None:
        return ()
    result: dict[str, tuple[IPv4Address, ...]] = {}
    for name in table.names:
        result[name.host] = name.addresses
    for name in table.names:
        for short in _short(name, namespace, domain):
            result.setdefault(short, name.addresses)
    return tuple(sorted(result.items()))


def _short(name: Name, namespace: str, domain: str) -> tuple[str, ...]:
    if name.registry != "Kubernetes" or not name.short_name:
        return ()
    within = f"{name.short_name}.{name.namespace}"
    if name.host != f"{within}.{domain}":
        return ()
    first = domain.split(".")[0]
    return (f"{within}.{first}", within, *((name.short_name,) if name.namespace == namespace else ()))
