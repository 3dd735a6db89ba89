"""Filter chains and RBAC filters that Istiod seldom writes, as Envoy takes them: nothing is left out."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from appswitch.errors import InvalidInput
from appswitch.policy import MAX_PORTS, InboundPolicy, Peer
from appswitch.xds.decode import decode_resource
from appswitch.xds.resources import LDS, Listener

HERE = IPv4Address("10.244.5.1")
NAMELESS = Peer(IPv4Address("10.244.5.12"))
CART = Peer(IPv4Address("10.244.5.11"), "shop", "cart")
Change = Callable[[Any], None]


def tcp(cluster: str = "inbound|80||") -> Change:
    def add(chain: Any) -> None:
        proxy = tcp_proxy_pb2.TcpProxy(stat_prefix="tcp", cluster=cluster)
        chain.filters.add(name="tcp").typed_config.Pack(proxy)

    return add


def rules(action: str, *permissions: rbac_pb2.Permission, principal: rbac_pb2.Principal | None = None) -> Any:
    policy = rbac_pb2.Policy(
        permissions=permissions or [rbac_pb2.Permission(any=True)],
        principals=[principal or rbac_pb2.Principal(any=True)],
    )
    return rbac_pb2.RBAC(action=action, policies={"p": policy})  # type: ignore[arg-type]


def rbac(made: Any) -> Change:
    def add(chain: Any) -> None:
        filters = network_rbac_pb2.RBAC(rules=made, stat_prefix="tcp.")
        chain.filters.add(name="envoy.filters.network.rbac").typed_config.Pack(filters)

    return add


def http(made: Any = None) -> Change:
    def add(chain: Any) -> None:
        manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix="http")
        if made is not None:
            inner = manager.http_filters.add(name="envoy.filters.http.rbac")
            inner.typed_config.Pack(http_rbac_pb2.RBAC(rules=made))
        chain.filters.add(name="http").typed_config.Pack(manager)

    return add


def encrypted(*, certificate: bool) -> Change:
    def add(chain: Any) -> None:
        context = tls_pb2.DownstreamTlsContext()
        context.require_client_certificate.value = certificate
        chain.transport_socket.name = "envoy.transport_sockets.tls"
        chain.transport_socket.typed_config.Pack(context)
        chain.filter_chain_match.transport_protocol = "tls"

    return add


def chain(*parts: Change, port: int = 0) -> Any:
    made = listener_components_pb2.FilterChain()
    if port:
        made.filter_chain_match.destination_port.value = port
    for part in parts:
        part(made)
    return made


def inbound(*chains: Any) -> Listener:
    message = listener_pb2.Listener(name="virtualInbound", traffic_direction="INBOUND", filter_chains=chains)
    message.address.socket_address.address = "0.0.0.0"
    message.address.socket_address.port_value = 15006
    decoded = decode_resource(LDS, message.SerializeToString())
    assert isinstance(decoded, Listener)
    return decoded


def let_in(listener: Listener, peer: Peer = NAMELESS, port: int = 80) -> bool:
    guard = InboundPolicy((HERE,), "cluster.local", listener.access).guard(HERE, port)
    return guard is None or not guard.refusal(peer)


DENY, ALLOW_NOBODY = rules("DENY"), rbac_pb2.RBAC(action="ALLOW")


@pytest.mark.parametrize(
    "chains",
    [
        [chain(rbac(DENY), http(), port=80)],
        [chain(http(), port=80), chain(rbac(DENY), tcp())],
        [chain(rbac(DENY), tcp()), chain(encrypted(certificate=True), tcp())],
        [chain(encrypted(certificate=True), tcp()), chain(rbac(DENY), tcp())],
        [chain(tcp("BlackHoleCluster"), port=80), chain(tcp())],
        [chain(port=80), chain(tcp())],
        [chain(rbac(ALLOW_NOBODY), tcp())],
        [chain(encrypted(certificate=False), tcp(), port=80), chain(tcp())],
    ],
    ids="http-chain everywhere-and-http first last nowhere no-filter allow-nobody no-certificate".split(),
)
def test_closed(chains: list[Any]) -> None:
    assert not let_in(inbound(*chains))


def test_the_proxys_own_port_is_none_here() -> None:
    listener = inbound(chain(tcp("BlackHoleCluster"), port=15006), chain(tcp()))
    assert [(each.port, each.plaintext) for each in listener.access] == [(0, True)]


def test_without_a_certificate_nobody_has_a_name() -> None:
    named = rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated())
    only_named = rbac(rules("ALLOW", principal=named))
    assert let_in(inbound(chain(encrypted(certificate=True), only_named, tcp())), CART)
    assert not let_in(inbound(chain(encrypted(certificate=False), only_named, tcp())), CART)


def test_what_http_alone_says_is_reported() -> None:
    listener = inbound(chain(http(DENY), port=80), chain(tcp()))
    assert let_in(listener)
    (found,) = [item for item in listener.unsupported if item.field == "inbound.http_filters.rbac"]
    assert found.resource == "virtualInbound/p" and "no connection is refused by it" in found.instead


def ports(first: int, end: int) -> rbac_pb2.Permission:
    made = rbac_pb2.Permission()
    made.destination_port_range.start, made.destination_port_range.end = first, end
    return made


def test_ranges_of_ports() -> None:
    listener = inbound(chain(rbac(rules("DENY", ports(80, 90))), tcp()))
    assert [let_in(listener, port=port) for port in (79, 80, 89, 90)] == [True, False, False, True]


def test_more_ports_than_the_tables_take_are_refused_and_reported() -> None:
    listener = inbound(chain(rbac(rules("DENY", ports(1, MAX_PORTS + 2))), tcp()))
    assert not let_in(listener, port=8080)
    assert any(f"more than {MAX_PORTS} ports" in item.field for item in listener.unsupported)


@pytest.mark.parametrize("pattern", ["(", "(?:a{1000}){1000}"])
def test_a_pattern_that_is_none_is_rejected(pattern: str) -> None:
    principal = rbac_pb2.Principal()
    principal.authenticated.principal_name.safe_regex.regex = pattern
    with pytest.raises(InvalidInput, match="no RE2 expression"):
        inbound(chain(rbac(rules("ALLOW", principal=principal)), tcp()))


def test_no_words_yet_are_not_the_word_that_all_may() -> None:
    """An agent that starts anew must not open what the table before closed."""
    from appswitch.xds.ads import Config
    from appswitch.xds.translate import Translator

    def config(**listeners: Listener) -> Config:
        return Config({}, {}, listeners, {}, None, (), ())

    translator = Translator(addresses=(HERE,))
    assert translator.translate(config()).policies is None
    closed = translator.translate(config(virtualInbound=inbound(chain(rbac(DENY), tcp()))))
    assert closed.policies
    assert translator.translate(config()).policies == ()
