"""resolv.conf(5), both ways: what the host's says, and the one that apps see.  Pure.

Sources: resolv.conf(5) of glibc (3 nameservers; options), musl's `res_msend`/`resolvconf.c` (search list
of 255 characters), Go's `net/dnsconfig_unix.go`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Server = tuple[IPv4Address | IPv6Address, int]
"""A name server's address and port."""

MAX_SERVERS = 3
"""As glibc's MAXNS: further lines are ignored by every resolver."""
MAX_SEARCH = 6
MAX_SEARCH_TEXT = 255
"""Limits that old glibc and today's musl share: what goes beyond would be ignored as a whole."""

_DROPPED = ("trust-ad", "rotate", "inet6", "ip6-bytestring")
"""Host options that must not reach apps: answers through us are not validated (trust-ad), there is one
server (rotate), and AAAA-first or bit-string look-ups find no address of the mesh."""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What we need of a resolv.conf."""

    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf as resolvers do: what is not understood is skipped, never an error.

    Without a nameserver line the resolver of this machine is meant: 127.0.0.1.
    """
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    servers.append((ip_address(address), 53))
                except ValueError:
                    continue
            case ["domain", domain, *_]:
                search = (domain,)
            case ["search", *domains]:
                search = tuple(domains)
            case ["options", *words]:
                options += words
    if not servers:
        servers.append((IPv4Address("127.0.0.1"), 53))
    return ResolvConf(tuple(servers[:MAX_SERVERS]), search, tuple(options))


def resolv_conf(dns_ip: IPv4Address, domain: str, host: ResolvConf = ResolvConf()) -> str:
    """The resolv.conf of apps: our server, our domain searched first, then what the host searches.

    The host's options are kept (`ndots`, `timeout`, `use-vc`, `single-request`, …) but for those that
    would be wrong here.
    """
    search: list[str] = []
    for suffix in (domain, *host.search):
        suffix = suffix.rstrip(".").lower()
        longer = [*search, suffix]
        if (
            not suffix
            or suffix in search
            or len(longer) > MAX_SEARCH
            or len(" ".join(longer)) > MAX_SEARCH_TEXT
        ):
            continue
        search = longer
    lines = ["# AppSwitch's built-in DNS server (ax run --dns-override=false keeps the host's)"]
    lines.append(f"nameserver {dns_ip}")
    if search:
        lines.append("search " + " ".join(search))
    options = [word for word in dict.fromkeys(host.options) if word not in _DROPPED]
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"
