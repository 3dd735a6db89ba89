"""What the Istio agent is told: the daemon's settings, and what Kubernetes says of the pod it runs in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

import msgspec

from appswitch.agent.resolv_conf import Server
from appswitch.errors import InvalidInput, UsageError

DELTA: Final = "delta"
SOTW: Final = "sotw"
META_KEY: Final = re.compile(r"(?!LABELS$)[A-Z][A-Z0-9_]*")
"""Metadata that is text.  LABELS is an object: as text it ends each stream."""
META_PREFIX: Final = "ISTIO_META_"
"""Variables that become node metadata, as in Istio's own agent."""


class IstioOptions(msgspec.Struct, frozen=True):
    """Plain values: they go to the agent's process as JSON."""

    target: str
    """HOST:PORT."""
    node_id: str = ""
    """Empty: made from what follows."""
    node_ip: str = "127.0.0.1"
    node_name: str = ""
    namespace: str = ""
    mode: str = DELTA
    """`DELTA`, which falls back to the other where the server does not know it; or `SOTW`."""
    ca_cert: str = ""
    """A file, as the next three.  Empty: plaintext."""
    token: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    trust_domain: str = "cluster.local"
    """First part of the names by which policies call apps."""
    locality: tuple[str, str, str] = ("", "", "")
    """Region, zone, sub-zone."""
    metadata: tuple[tuple[str, str], ...] = ()
    dns_servers: tuple[str, ...] = ()
    """IP:PORT, asked for host names of DNS clusters.  None: those of the host's resolv.conf."""


def encode(options: IstioOptions) -> str:
    """For a command line."""
    return msgspec.json.encode(options).decode()


def decode(text: str) -> IstioOptions:
    """The reverse.  Raises InvalidInput."""
    try:
        return msgspec.json.decode(text, type=IstioOptions)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"options of the Istio agent: {error}") from error


def servers(options: IstioOptions) -> tuple[Server, ...]:
    """Name servers.  Raises UsageError."""
    try:
        parts = [text.rpartition(":") for text in options.dns_servers]
        return tuple((ip_address(host), int(port)) for host, _, port in parts)
    except ValueError as error:
        raise UsageError(f"name servers {', '.join(options.dns_servers)}: {error}") from error


def node_id(options: IstioOptions, environ: Mapping[str, str]) -> str:
    """As whom to ask: as was said; else as the pod that Kubernetes' downward API tells of (INSTANCE_IP,
    POD_NAME, POD_NAMESPACE); else as a workload with the node's address and name."""
    if options.node_id:
        return options.node_id
    name = environ.get("POD_NAME") or options.node_name
    label = "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-") or "node"
    namespace = options.namespace or environ.get("POD_NAMESPACE") or "default"
    ip = environ.get("INSTANCE_IP") or options.node_ip
    return f"sidecar~{ip}~{label}.{namespace}~{namespace}.svc.cluster.local"


def metadata(options: IstioOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """Node metadata beside the defaults; what was said wins over the environment."""
    found = {
        name.removeprefix(META_PREFIX): value
        for name, value in environ.items()
        if name.startswith(META_PREFIX) and META_KEY.fullmatch(name.removeprefix(META_PREFIX))
    }
    if account := environ.get("SERVICE_ACCOUNT"):
        found["SERVICE_ACCOUNT"] = account
    return found | dict(options.metadata)
