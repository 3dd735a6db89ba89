"""Who may connect: RBAC filters and chains of the inbound listener.  Raises DecodeError and ValueError.

Envoy's network RBAC filters of the chains for plain TCP hold the whole policy of the workload, for every
port.  Those inside HTTP connection managers say the same once more, with what only a request can tell:
they are compared and the difference is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

import re2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from appswitch.policy import (
    ALWAYS,
    MAX_PORTS,
    NEVER,
    AccessFilter,
    AccessRule,
    Action,
    Condition,
    ConditionKind,
    PortAccess,
    is_pattern,
)
from appswitch.xds.leftover import HTTP_MANAGER, QUIET_FILTERS, QUIET_HTTP, TCP_PROXY, Leftover
from appswitch.xds.resources import BLACKHOLE

_NETWORK_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_HTTP_RBAC: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_DOWNSTREAM_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_EXT_AUTHZ: Final = "istio_ext_authz_"
"""Prefix of the statistics of a filter that only prepares for an external authorizer (action CUSTOM)."""
_PEER: Final = "io.istio.peer_principal"

_Enforced = tuple[str, str, bytes]
"""Action, name and bytes of a policy that is in force."""


@dataclass(slots=True)
class _Port:
    """What the chains of one port add up to."""

    plaintext: bool = False
    mutual: bool = False
    filters: list[AccessFilter] = field(default_factory=list)
    """Of all of them, each once: chains of one port seldom differ, and then all must be passed."""
    http: bool = False


def inbound(message: Any, left: Leftover) -> tuple[PortAccess, ...]:
    """What a listener for inbound connections says of each port; that of port 0 is about all others."""
    ports: dict[int, _Port] = {}
    enforced: set[_Enforced] = set()
    managers: list[Any] = []
    named: set[int] = set()
    chains = [*message.filter_chains]
    if message.HasField("default_filter_chain"):
        chains.append(message.default_filter_chain)
    for chain in chains:
        match = chain.filter_chain_match
        number = match.destination_port.value
        if number > 65535:
            raise ValueError(f"port {number}")
        if number and number == message.address.socket_address.port_value:
            continue  # the proxy's own port, which is none here
        port = ports.setdefault(number, _Port())
        if _leads_nowhere(chain):
            continue
        left.fields("inbound.filter_chain_match", match, _MATCH_FIELDS)
        encrypted = chain.HasField("transport_socket")
        mutual = encrypted and _asks_for_certificate(chain.transport_socket)
        if mutual:
            left.add("inbound.transport_socket", "nothing is encrypted: apps of this node prove who they are")
        elif encrypted:
            left.add("inbound.transport_socket", "TLS is not terminated: nobody is let in by this chain")
        over_tcp = match.transport_protocol in ("", "raw_buffer")
        port.plaintext |= over_tcp and not encrypted
        port.mutual |= mutual and match.transport_protocol in ("", "tls")
        for item in chain.filters:
            if item.typed_config.type_url == _NETWORK_RBAC:
                rbac = network_rbac_pb2.RBAC.FromString(item.typed_config.value)
                enforced.update(_enforced(rbac))
                port.filters += [each for each in _filter(rbac, left, named) if each not in port.filters]
            elif item.typed_config.type_url == HTTP_MANAGER:
                port.http = True
                managers.append(item)
            elif item.typed_config.type_url != TCP_PROXY and item.name not in QUIET_FILTERS:
                left.add(f"inbound.filters.{item.name}", "not applied")
    for item in managers:
        _compare(item, enforced, left)
    everywhere = ports[0].filters if 0 in ports else []
    return tuple(
        PortAccess(
            number,
            port.plaintext,
            port.mutual,
            (*(each for each in everywhere if port.http and each not in port.filters), *port.filters),
        )
        for number, port in sorted(ports.items())
    )


def _asks_for_certificate(socket: Any) -> bool:
    if socket.typed_config.type_url != _DOWNSTREAM_TLS:
        return False
    context = tls_pb2.DownstreamTlsContext.FromString(socket.typed_config.value)
    return bool(context.require_client_certificate.value)


_MATCH_FIELDS: Final = frozenset({"destination_port", "application_protocols", "transport_protocol"})


def _leads_nowhere(chain: Any) -> bool:
    """Nothing takes its connections.  Envoy looks at no other chain then."""
    for item in chain.filters:
        if item.typed_config.type_url == TCP_PROXY:
            return bool(tcp_proxy_pb2.TcpProxy.FromString(item.typed_config.value).cluster == BLACKHOLE)
    return not any(item.typed_config.type_url == HTTP_MANAGER for item in chain.filters)


def _enforced(rbac: Any) -> Iterator[_Enforced]:
    action = rbac_pb2.RBAC.Action.Name(rbac.rules.action)
    for name, policy in rbac.rules.policies.items():
        yield action, name, policy.SerializeToString(deterministic=True)


def _compare(item: Any, enforced: set[_Enforced], left: Leftover) -> None:
    """Report what requests are asked for beyond what connections are."""
    manager = http_connection_manager_pb2.HttpConnectionManager.FromString(item.typed_config.value)
    for inner in manager.http_filters:
        if inner.typed_config.type_url != _HTTP_RBAC:
            if inner.name not in QUIET_HTTP:
                left.add(f"inbound.http_filters.{inner.name}", "not applied")
            continue
        known = {(action, name) for action, name, _ in enforced}
        for action, name, data in _enforced(http_rbac_pb2.RBAC.FromString(inner.typed_config.value)):
            if (action, name, data) in enforced or action == "LOG":
                continue
            instead = "only requests can tell: no connection is let through by it"
            if (action, name) in known:
                instead = f"what only requests can tell is left out: {action} is for the connection"
            elif action == "DENY":
                instead = "only requests can tell: no connection is refused by it"
            left.add("inbound.http_filters.rbac", instead, name)


def _filter(rbac: Any, left: Leftover, named: set[int]) -> Iterator[AccessFilter]:
    if rbac.shadow_rules.policies or rbac.HasField("shadow_matcher"):
        custom = rbac.shadow_rules_stat_prefix.startswith(_EXT_AUTHZ)
        if custom:
            left.add("inbound.rbac.ext_authz", "CUSTOM: no external authorizer is asked")
        else:
            for name in rbac.shadow_rules.policies or ("matcher",):
                left.add("inbound.rbac.shadow_rules", "dry run: what it would do is not logged", name)
    if rbac.HasField("matcher"):
        left.add("inbound.rbac.matcher", "not understood: every connection is refused")
        yield AccessFilter(Action.DENY, (AccessRule("matcher", ALWAYS),))
    if not rbac.HasField("rules"):
        return
    if rbac.rules.action == rbac_pb2.RBAC.LOG:
        for name in rbac.rules.policies:
            left.add("inbound.rbac.rules.LOG", "AUDIT: matching connections are not logged", name)
        return
    action = Action.DENY if rbac.rules.action == rbac_pb2.RBAC.DENY else Action.ALLOW
    rules = tuple(
        AccessRule(name, _policy(policy, _Decoder(left, name, action, named)))
        for name, policy in sorted(rbac.rules.policies.items())
    )
    if rules or action is Action.ALLOW:
        yield AccessFilter(action, rules)


def _policy(policy: Any, decoder: _Decoder) -> Condition:
    parts = [
        _any(map(decoder.permission, policy.permissions)),
        _any(map(decoder.principal, policy.principals)),
    ]
    for name in ("condition", "checked_condition", "cel_config"):
        if name in policy.DESCRIPTOR.fields_by_name and policy.HasField(name):
            parts.append(decoder.unknown(name))
    return _all(parts)


def _all(parts: Iterable[Condition]) -> Condition:
    return _join(ConditionKind.ALL, parts)


def _any(parts: Iterable[Condition]) -> Condition:
    return _join(ConditionKind.ANY, parts)


def _join(kind: ConditionKind, parts: Iterable[Condition]) -> Condition:
    found = tuple(parts)
    return found[0] if len(found) == 1 else Condition(kind, found)


class _Decoder:
    """Permissions and principals of one policy."""

    def __init__(self, left: Leftover, name: str, action: Action, named: set[int]) -> None:
        self._left, self._name = left, name
        self._named = named
        """Ports that the whole listener names so far."""
        self._instead = (
            "not known: the connection is refused"
            if action is Action.DENY
            else "not known: it lets nobody through"
        )

    def unknown(self, field: str) -> Condition:
        """Something that connect() cannot tell."""
        self._left.add(f"inbound.rbac.{field}", self._instead, self._name)
        return Condition(ConditionKind.UNKNOWN, pattern=field)

    def permission(self, message: Any) -> Condition:
        """envoy.config.rbac.v3.Permission"""
        match message.WhichOneof("rule"):
            case "and_rules":
                return _all(map(self.permission, message.and_rules.rules))
            case "or_rules":
                return _any(map(self.permission, message.or_rules.rules))
            case "not_rule":
                return _not(self.permission(message.not_rule))
            case "any":
                return ALWAYS
            case "destination_ip":
                return _network(ConditionKind.DESTINATION, message.destination_ip)
            case "destination_port":
                return self._ports(message.destination_port, message.destination_port)
            case "destination_port_range":
                first, last = message.destination_port_range.start, message.destination_port_range.end - 1
                return self._ports(first, last) if first <= last else NEVER
            case other:
                return self.unknown(other or "permission")

    def principal(self, message: Any) -> Condition:
        """envoy.config.rbac.v3.Principal"""
        match message.WhichOneof("identifier"):
            case "and_ids":
                return _all(map(self.principal, message.and_ids.ids))
            case "or_ids":
                return _any(map(self.principal, message.or_ids.ids))
            case "not_id":
                return _not(self.principal(message.not_id))
            case "any":
                return ALWAYS
            case "source_ip" | "direct_remote_ip" | "remote_ip" as name:
                return _network(ConditionKind.SOURCE, getattr(message, name))
            case "authenticated":
                named = message.authenticated.HasField("principal_name")
                return self._name_is(message.authenticated.principal_name) if named else _matching(".*")
            case "filter_state" if message.filter_state.key == _PEER:
                return self._name_is(message.filter_state.string_match)
            case other:
                return self.unknown(other or "principal")

    def _ports(self, first: int, last: int) -> Condition:
        if not 0 <= first <= last <= 65535:
            raise ValueError(f"ports {first} to {last}")
        self._named.update(range(first, last + 1))
        if len(self._named) > MAX_PORTS:
            return self.unknown(f"destination_port: more than {MAX_PORTS} ports")
        return Condition(ConditionKind.PORT, first=first, last=last)

    def _name_is(self, matcher: Any) -> Condition:
        """envoy.type.matcher.v3.StringMatcher"""
        rest = "(?s:.*)"
        writers: dict[str, Callable[[], str]] = {
            "exact": lambda: re2.escape(matcher.exact),
            "prefix": lambda: re2.escape(matcher.prefix) + rest,
            "suffix": lambda: rest + re2.escape(matcher.suffix),
            "contains": lambda: rest + re2.escape(matcher.contains) + rest,
            "safe_regex": lambda: str(matcher.safe_regex.regex),
        }
        kind = matcher.WhichOneof("match_pattern")
        if kind not in writers:
            return self.unknown(f"principal_name.{kind or 'nothing'}")
        pattern = writers[kind]()
        if matcher.ignore_case and kind != "safe_regex":
            pattern = f"(?i:{pattern})"
        return _matching(pattern)


def _not(part: Condition) -> Condition:
    return Condition(ConditionKind.NOT, (part,))


def _matching(pattern: str) -> Condition:
    if not is_pattern(pattern):
        raise ValueError(f"{pattern!r} is no RE2 expression")
    return Condition(ConditionKind.PRINCIPAL, pattern=pattern)


def _network(kind: ConditionKind, message: Any) -> Condition:
    """envoy.config.core.v3.CidrRange; of IPv6 no IPv4 connection is."""
    text = f"{message.address_prefix}/{message.prefix_len.value}"
    if ":" in text:
        IPv6Network(text, strict=False)
        return NEVER
    return Condition(kind, network=IPv4Network(text, strict=False))
