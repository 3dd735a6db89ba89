"""What `ax daemon` can be told: one field per flag of the manual's section 4.1, with its meaning.

Each field becomes a flag, an `AX_*` variable of the environment and a key of the config file; see
`settings_load.py` for how they are read.  The text after a field says what the help line does not:
unit, direction, and why this default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

from appswitch.agent import settings_parse as parse
from appswitch.agent.istio_options import IstioOptions

DEFAULT_RUN_DIR: Final = Path("/var/run/appswitch")


@dataclass(frozen=True, slots=True)
class Option:
    """How a field is spelled on the command line."""

    flag: str
    metavar: str
    help: str
    parse: Callable[[str], Any]
    """Text to value; raises ValueError with the reason."""

    @property
    def variable(self) -> str:
        """The environment's and the config file's name: `--rest-port` is `AX_REST_PORT`."""
        return "AX_" + self.flag[2:].upper().replace("-", "_")


def option(flag: str, default: Any, convert: Callable[[str], Any], metavar: str, text: str) -> Any:
    """Declare a field that is also a flag."""
    return field(default=default, metadata={"option": Option(flag, metavar, text, convert)})


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Who this node is."""

    name: str = option("--node-name", "", parse.node_name, "name", "Name of the node (defaults to host name)")
    """Shown as NODEID.  Empty: the host name when the daemon starts."""
    interface: str = option(
        "--node-interface", "", parse.word, "interface", "IP address or interface name, eg eth0, of the node"
    )
    """Its first IPv4 address is the node's.  Empty: the first address that is not loopback."""
    cluster: str = option("--cluster", "appswitch", parse.node_name, "name", "Cluster name")
    """Shown as CLUSTER; must be unique in a federation."""


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """How apps' network calls are taken over, and with which addresses and ports."""

    name: str = option(
        "--driver", "", parse.driver, "name", "System call forwarding driver (default: the best)"
    )
    """`kernel`, the only one of this release; empty chooses it."""
    ports: tuple[tuple[int, int], ...] = option(
        "--ports",
        ((40000, 60000),),
        parse.port_ranges,
        "csv",
        'List of ports, or port ranges, reserved for applications (default: "40000-60000")',
    )
    """Inclusive ranges of host ports that listening apps really get."""
    vip_range: IPv4Network = option(  # noqa: RUF009
        "--vip-range",
        IPv4Network("241.0.0.0/8"),
        parse.vip_range,
        "cidr",
        'Addresses for names without one (default: "241.0.0.0/8")',
    )
    """Reserved by IANA (class E), so that no address of the world is hidden; equal on all nodes."""

    connect_wait: float = option(
        "--connect-wait",
        0.0,
        parse.wait,
        "time",
        "How long applications' connect() waits for a listener, eg 10s (default: 0)",
    )
    """Seconds, of apps that do not say `ax run --connect-wait`.  0: ECONNREFUSED at once, as natively."""

    @property
    def dns_ip(self) -> IPv4Address:
        """The address that apps' resolv.conf names: .53 of the range's last 256, never given to a name."""
        return self.vip_range.broadcast_address - 255 + 53


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """The built-in DNS server."""

    enabled: bool = option("--dns", True, parse.switch, "", "Start the built-in DNS server (default: true)")
    """Off: apps keep the host's resolv.conf, and `--name` gives an address but no name."""
    domain: str = option(
        "--dns-domain",
        "appswitch.local",
        parse.domain,
        "name",
        'DNS domain name suffix (default: "appswitch.local")',
    )
    """Apps search it, so that `web` and `web.appswitch.local` are the same."""
    servers: tuple[tuple[IPv4Address, int], ...] = option(
        "--dns-servers", (), parse.dns_servers, "csv", "List of 'IP[:port]' strings of forwarding servers"
    )
    """Asked for every other name.  Empty: those of the host's resolv.conf."""


@dataclass(frozen=True, slots=True)
class IstioSettings:
    """The Istio agent."""

    target: str = option(
        "--istio", "", parse.host_port, "host:port", "Istiod's xDS address (TLS: with --istio-ca-cert)"
    )
    """Empty: no Istio."""
    node_id: str = option(
        "--istio-node-id", "", parse.istio_node_id, "id", "xDS node id: TYPE~IP~POD.NAMESPACE~DOMAIN"
    )
    """Decides which configuration Istiod computes.  Empty: made from the node's IP and name."""
    mode: str = option(
        "--istio-mode",
        "delta",
        parse.istio_mode,
        "mode",
        'xDS dialogue, "delta" or "sotw" (default: "delta")',
    )
    """Delta falls back to the state of the world where the server does not know it."""
    ca_cert: Path | None = option(  # noqa: RUF009
        "--istio-ca-cert", None, parse.file, "file", "Root certificate of Istiod's TLS port, usually 15012"
    )
    """None: plaintext."""
    token: Path | None = option(  # noqa: RUF009
        "--istio-token", None, parse.file, "file", "JSON web token (audience istio-ca) for Istiod"
    )
    """Read anew for each stream, as the next two."""
    cert: Path | None = option(  # noqa: RUF009
        "--istio-cert", None, parse.file, "file", "Client certificate for Istiod, with --istio-key"
    )
    key: Path | None = option(  # noqa: RUF009
        "--istio-key", None, parse.file, "file", "Private key of --istio-cert"
    )
    server_name: str = option(
        "--istio-server-name", "", parse.domain, "name", "Name in Istiod's certificate (default: its host)"
    )
    """Empty: the host of `--istio`, or istiod.istio-system.svc where that is an address."""
    namespace: str = option(
        "--istio-namespace", "", parse.node_name, "name", 'Namespace to ask as (default: "default")'
    )
    """Of the node id that is made; a pod's own variable POD_NAMESPACE is asked before the default."""
    cluster_id: str = option(
        "--istio-cluster-id",
        "",
        parse.node_name,
        "name",
        'Istio\'s name of the cluster (default: "Kubernetes")',
    )
    """Node metadata CLUSTER_ID: picks the VIPs."""
    locality: tuple[str, str, str] = option(
        "--istio-locality", ("", "", ""), parse.locality, "r/z/s", "Region, zone and sub-zone of this node"
    )
    """Locality load balancing needs it."""
    trust_domain: str = option(
        "--istio-trust-domain",
        "cluster.local",
        parse.domain,
        "name",
        "First part of the names by which policies call apps: spiffe://NAME/ns/NAMESPACE/sa/ACCOUNT",
    )
    metadata: tuple[tuple[str, str], ...] = option(
        "--istio-meta", (), parse.metadata, "csv", "Node metadata as KEY=VALUE, eg SERVICE_ACCOUNT=web"
    )

    def options(
        self, ip: IPv4Address, name: str, dns_servers: Sequence[tuple[IPv4Address, int]] = ()
    ) -> IstioOptions:
        """For the agent's process; `ip` and `name` are the node's."""
        cluster = (("CLUSTER_ID", self.cluster_id),) if self.cluster_id else ()
        return IstioOptions(
            self.target,
            self.node_id,
            str(ip),
            name,
            self.namespace,
            self.mode,
            str(self.ca_cert or ""),
            str(self.token or ""),
            str(self.cert or ""),
            str(self.key or ""),
            self.server_name,
            self.trust_domain,
            self.locality,
            cluster + self.metadata,
            tuple(f"{address}:{port}" for address, port in dns_servers),
        )


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """Profiling of the daemon and the Istio agent; at most one of the two."""

    cpu: Path | None = option(  # noqa: RUF009
        "--cpu-profile", None, parse.file, "file", "Write CPU profile output to file"
    )
    """.html: a page; .pstats: Python's own; else speedscope's JSON."""
    memory: Path | None = option(  # noqa: RUF009
        "--mem-profile", None, parse.file, "file", "Write memory profile output to file"
    )
    """memray's binary format; grows with the allocations."""


@dataclass(frozen=True, slots=True)
class UserSettings:
    """What users but root may do."""

    claims: str = option(
        "--user-claims",
        "own",
        parse.claims,
        "own|any",
        "Names, labels and addresses that ordinary users' applications may take (default: own)",
    )
    """`own`: what ends with the user's name or number.  An app at 8.8.8.8 gets what all others send there."""
    apps: int = option(
        "--user-apps",
        256,
        parse.count,
        "number",
        "Most applications of one ordinary user at once (default: 256)",
    )
    """Each costs the daemon two descriptors, a cgroup and places in the kernel's tables."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `ax daemon` was told."""

    node: NodeSettings = NodeSettings()
    driver: DriverSettings = DriverSettings()
    dns: DnsSettings = DnsSettings()
    istio: IstioSettings = IstioSettings()
    users: UserSettings = UserSettings()
    profile: ProfileSettings = ProfileSettings()
    clean: bool = option("--clean", False, parse.switch, "", "Remove any saved state from previous sessions")
    """Apps that still run lose their mesh: they are forgotten, not stopped."""
    rest_port: int = option(
        "--rest-port", 6664, parse.port_or_off, "number", "REST API port number (default: 6664)"
    )
    """TCP on 127.0.0.1, read-only; 0: the Unix socket alone."""
    run_dir: Path = option(  # noqa: RUF009
        "--run-dir",
        DEFAULT_RUN_DIR,
        parse.directory,
        "dir",
        'Sockets and state (default: "/var/run/appswitch")',
    )
    """One daemon each; several daemons with different ones share a machine."""
    log_file: Path | None = option(  # noqa: RUF009
        "--log-file", None, parse.file, "file", "Log file (default: standard error)"
    )
    """Always JSON in a file or pipe; colours only on a terminal."""


@dataclass(frozen=True, slots=True)
class Later:
    """A flag of the manual whose feature this release does not have: declared, never ignored."""

    flag: str
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        """As `Option.variable`."""
        return "AX_" + self.flag[2:].upper().replace("-", "_")


LATER: Final = (
    Later("--neighbors", "csv", "List (csv) of IP addresses of cluster neighbors"),
    Later("--gossip-port", "number", "Gossip protocol port number (default: 7946)"),
    Later("--gossip-auto-discover", "", "Auto discover neighbors"),
    Later("--tls", "", "Enable Transport Layer Security"),
    Later("--tls-ca-cert", "file", "Path to TLS CA certificate file"),
    Later("--tls-cert", "file", "Path to TLS certificate file"),
    Later("--tls-key", "file", "Path to TLS key file"),
    Later("--egress-gateway", "", "Configure node as egress gateway"),
    Later("--federation-gateway-ip", "interface", "IP address or interface name for federation connectivity"),
    Later("--federation-gateway-advertise-ip", "value", "Required iff proxy node is behind NAT"),
    Later("--federation-gateway-port", "number", "Federation gateway port number (default: 6660)"),
    Later("--federation-gateway-gossip-port", "number", "Federation gossip port number (default: 7947)"),
    Later("--federation-gateway-neighbors", "csv", "List (csv) of IP addresses of federation neighbors"),
)
"""Flags of 4.1 that exit with code 64 when given."""
