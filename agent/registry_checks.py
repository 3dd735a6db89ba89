"""Whether an address or a vservice makes sense by itself, whatever else there is.  Pure.

Each refusal names the thing, the value, the reason and what to do.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from appswitch.errors import UsageError
from appswitch.interceptor.decision import LINK_LOCAL
from appswitch.model import VService, is_local

MAX_BACKENDS: Final = 4096
"""Of one vservice: as many as the kernel program looks through for one that lives."""


def check_address(address: IPv4Address, who: str) -> None:
    """Raises UsageError where it cannot be the address of an app or a vservice."""
    reason = ""
    if address.is_loopback:
        reason = "loopback is private to each app"
    elif address in LINK_LOCAL:
        reason = "link-local addresses are refused to apps"
    elif address.is_multicast or address.is_unspecified or int(address) == 0xFFFF_FFFF:
        reason = "it is no address of one party"
    if reason:
        raise UsageError(f"{who}: {address} cannot be used: {reason}; choose another --ip")


def admissible(vservice: VService) -> VService:
    """One of Istio's, without the backends that an app may not dial by itself."""
    backends = tuple(backend for backend in vservice.backends if not is_local(backend.address))
    if backends == vservice.backends and vservice.origin == "istio":
        return vservice
    return replace(vservice, origin="istio", backends=backends)


def check_vservice(vservice: VService) -> None:
    """Raises UsageError if it makes no sense by itself."""
    who = f"vservice {vservice.name!r}"
    if not vservice.name or not vservice.name.isprintable() or " " in vservice.name or "/" in vservice.name:
        raise UsageError(f"{who}: the name must be a word without '/'")
    if not vservice.backends:
        raise UsageError(f"{who} has no backends; give at least one by --backends IP[:PORT],…")
    if len(vservice.backends) > MAX_BACKENDS:
        raise UsageError(f"{who} has {len(vservice.backends)} backends; the most is {MAX_BACKENDS}")
    if not vservice.ports:
        raise UsageError(f"{who} has no ports; give at least one by --ports VPORT:PORT,…")
    if len({ports.port for ports in vservice.ports}) < len(vservice.ports):
        raise UsageError(f"{who}: a port is given twice in {[ports.port for ports in vservice.ports]}")
    if any(not ports.target for ports in vservice.ports):
        raise UsageError(f"{who}: target port 0 is not in 1..65535")
    check_numbers(vservice)


def check_numbers(vservice: VService) -> None:
    """Raises UsageError where a port or a weight does not fit into the tables."""
    who = f"vservice {vservice.name!r}"
    for ports in vservice.ports:
        if not 0 < ports.port < 65536:
            raise UsageError(f"{who}: port {ports.port} is not in 1..65535")
        if not 0 <= ports.target < 65536:
            raise UsageError(f"{who}: target port {ports.target} is not in 1..65535")
    for backend in vservice.backends:
        if not 0 <= backend.port < 65536:
            raise UsageError(f"{who}: port {backend.port} of backend {backend.address} is not in 1..65535")
        if not 0 <= backend.weight < 1 << 32:
            raise UsageError(
                f"{who}: weight {backend.weight} of backend {backend.address} is not in 0..4294967295"
            )
