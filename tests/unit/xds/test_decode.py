"""Decoding: what is kept, what is reported, and that bytes from outside raise one error only."""

from __future__ import annotations

from pathlib import Path

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.network.dns_resolver.cares.v3.cares_dns_resolver_pb2 import CaresDnsResolverConfig
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appswitch.errors import InvalidInput
from appswitch.xds import leftover
from appswitch.xds.decode import decode_delta_response, decode_resource, decode_response, peek_name
from appswitch.xds.make import assignment, cluster, dns_cluster, endpoint, http_listener, routes, tcp_listener
from appswitch.xds.recording import load
from appswitch.xds.resources import (
    CDS,
    EDS,
    LDS,
    NDS,
    ORDER,
    RDS,
    Assignment,
    Cluster,
    Discovery,
    Listener,
    RawResource,
    Refresh,
    RouteConfig,
    Unsupported,
)

dns_load = endpoint_pb2.ClusterLoadAssignment(
    cluster_name="a", endpoints=[{"lb_endpoints": [endpoint("x.test:80")]}]
)
BOOKINFO = Path(__file__).resolve().parents[3] / "istio-samples" / "bookinfo" / "recording"
RECORDED = [
    (raw.type_url, raw.value)
    for message in load(BOOKINFO).steps[0].messages
    for raw in message.response.resources
]


@settings(max_examples=80, deadline=None)
@given(url=st.sampled_from(ORDER), data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_our_error(url: str, data: bytes) -> None:
    for decode in (lambda: decode_resource(url, data), lambda: decode_response(data)):
        try:
            decode()
        except InvalidInput:
            pass


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(RECORDED), data=st.data())
def test_damaged_resources_raise_only_our_error(case: tuple[str, bytes], data: st.DataObject) -> None:
    url, value = case
    position = data.draw(st.integers(0, len(value) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    flipped = value[:position] + bytes([value[position] ^ bit]) + value[position + 1 :]
    for damaged in (flipped, value[:position], value[:position] + value):
        try:
            decode_resource(url, damaged)
        except InvalidInput as error:
            assert str(error)


def test_the_error_names_the_resource() -> None:
    with pytest.raises(InvalidInput, match=r"^outbound\|80\|\|web: "):
        decode_resource(CDS, cluster("outbound|80||web").value + b"\xff")
    with pytest.raises(InvalidInput, match="type 'x' is not one of ours"):
        decode_resource("x", b"")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"", ""),
        (b"\x0a\x03abc\xff", "abc"),
        (b"\x0a\x05abc", ""),
        (b"\x0a\x02\xff\xfe", ""),
        (b"\x12\x03abc", ""),
        (cluster("x" * 300).value, "x" * 300),
        (b"\x0a\xff\xff\xff", ""),
    ],
)
def test_names_of_broken_resources(value: bytes, name: str) -> None:
    assert peek_name(value) == name


def test_c47_wrapped_resources_are_unwrapped() -> None:
    message = discovery_pb2.DiscoveryResponse(type_url=CDS, version_info="1", nonce="n", canary=True)
    inner = discovery_pb2.Resource(name="a", version="7", ttl={"seconds": 2, "nanos": 500_000_000})
    inner.resource.type_url, inner.resource.value = CDS, cluster("a").value
    message.resources.add(
        type_url="type.googleapis.com/envoy.service.discovery.v3.Resource", value=inner.SerializeToString()
    )
    response = decode_response(message.SerializeToString())
    assert (response.version, response.nonce) == ("1", "n")
    assert response.resources == (RawResource(CDS, cluster("a").value, "a", "7", 2.5),)


def test_cluster() -> None:
    raw = cluster("a", eds_cluster_config={"service_name": "b"}, lb_policy=2, connect_timeout={"seconds": 2})
    decoded = decode_resource(CDS, raw.value)
    assert isinstance(decoded, Cluster)
    assert (decoded.name, decoded.discovery, decoded.eds_name) == ("a", Discovery.EDS, "b")
    assert decoded.unsupported == (
        Unsupported("cluster.connect_timeout", "a", "the kernel's instead of 2 s"),
        Unsupported("cluster.lb_policy", "a", "RING_HASH: Random"),
    )


@pytest.mark.parametrize(
    ("url", "message", "reason"),
    [
        (CDS, cluster_pb2.Cluster(), "without name"),
        (CDS, cluster_pb2.Cluster(name="a", lb_policy=99), "99"),
        (CDS, dns_cluster("a", "x.test:80", "y.test:80", logical=True), "one endpoint"),
        (CDS, cluster("a", type=2), "one endpoint"),
        (CDS, dns_cluster("a", "x.test:80", dns_refresh_rate={"seconds": 0}), "dns_refresh_rate 0 s"),
        (
            CDS,
            dns_cluster("a", "x.test:80", dns_failure_refresh_rate={"base_interval": {"seconds": -1}}),
            "base_interval -1 s",
        ),
        (CDS, cluster("a", type=0, load_assignment=dns_load), "no IP address"),
        (EDS, endpoint_pb2.ClusterLoadAssignment(), "without cluster name"),
        (
            EDS,
            endpoint_pb2.ClusterLoadAssignment(cluster_name="a", endpoints=[{"priority": 200}]),
            "priority",
        ),
        (
            EDS,
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name="a", endpoints=[{"lb_endpoints": [endpoint("a.b:80")]}]
            ),
            "no IP address",
        ),
        (
            EDS,
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name="a", endpoints=[{"lb_endpoints": [endpoint("10.0.0.1:0")]}]
            ),
            "port 0",
        ),
        (
            EDS,
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name="a", endpoints=[{"lb_endpoints": [endpoint("10.0.0.1:80/0")]}]
            ),
            "weight 0",
        ),
        (LDS, listener_pb2.Listener(), "without name"),
        (LDS, listener_pb2.Listener(name="a", traffic_direction=2), "no filter chain"),
        (RDS, route_pb2.RouteConfiguration(), "without name"),
        (RDS, route_pb2.RouteConfiguration(name="a", virtual_hosts=[{"name": "v"}]), "no domains"),
        (
            RDS,
            route_pb2.RouteConfiguration(
                name="a", virtual_hosts=[{"name": "v", "domains": ["x"]}, {"name": "w", "domains": ["X"]}]
            ),
            "stands in two",
        ),
    ],
)
def test_invalid_resources(url: str, message: object, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        value = message.value if isinstance(message, RawResource) else message.SerializeToString()  # type: ignore[attr-defined]
        decode_resource(url, value)


def test_dns_cluster() -> None:
    plain = decode_resource(CDS, dns_cluster("a", "One.test:80/3", "10.0.0.1:81").value)
    assert isinstance(plain, Cluster) and plain.inline is not None
    assert plain.refresh == Refresh(5.0, False, 0.0, (5.0, 5.0))
    assert plain.unsupported == ()
    one, other = plain.inline.localities[0].endpoints
    assert (one.named, one.host, one.port, one.weight, other.named) == (True, "One.test", 80, 3, False)
    cares = Any()
    cares.Pack(CaresDnsResolverConfig(udp_max_queries={"value": 100}))
    istio = dns_cluster(
        "a",
        "one.test:80",
        dns_refresh_rate={"seconds": 60},
        respect_dns_ttl=True,
        dns_jitter={"nanos": 100_000_000},
        dns_failure_refresh_rate={"base_interval": {"seconds": 2}},
        dns_lookup_family=1,
        typed_dns_resolver_config={"name": "envoy.network.dns_resolver.cares", "typed_config": cares},
    )
    decoded = decode_resource(CDS, istio.value)
    assert isinstance(decoded, Cluster)
    assert decoded.refresh == Refresh(60.0, True, 0.1, (2.0, 20.0))
    assert decoded.unsupported == ()


def test_what_a_dns_cluster_asks_for_and_is_not_done_is_reported() -> None:
    cares = Any()
    cares.Pack(CaresDnsResolverConfig(resolvers=[{"socket_address": {"address": "8.8.8.8"}}]))
    own = dns_cluster(
        "a",
        "one.test:80",
        "::1:80",
        dns_lookup_family=2,
        use_tcp_for_dns_lookups=True,
        typed_dns_resolver_config={"name": "x", "typed_config": cares},
    )
    decoded = decode_resource(CDS, own.value)
    assert isinstance(decoded, Cluster)
    assert {item.field for item in decoded.unsupported} == {
        "cluster.dns_lookup_family",
        "cluster.typed_dns_resolver_config",
        "cluster.use_tcp_for_dns_lookups",
        "endpoint.address.ipv6",
    }


def test_assignment_health_weight_and_what_cannot_be_dialled() -> None:
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name="a")
    locality = message.endpoints.add(priority=1)
    locality.locality.region = "r1"
    locality.load_balancing_weight.value = 7
    locality.lb_endpoints.extend([endpoint("10.0.0.1:80/3"), endpoint("10.0.0.2:80", health=2)])
    locality.lb_endpoints.extend([endpoint("fd00::1:80")])
    locality.lb_endpoints.add().endpoint.address.pipe.path = "/x"
    decoded = decode_resource(EDS, message.SerializeToString())
    assert isinstance(decoded, Assignment)
    (place,) = decoded.localities
    assert (place.place, place.priority, place.weight) == (("r1", "", ""), 1, 7)
    assert [(item.host, item.weight, item.healthy) for item in place.endpoints] == [
        ("10.0.0.1", 3, True),
        ("10.0.0.2", 1, False),
        ("fd00::1", 1, True),
    ]
    assert {item.field for item in decoded.unsupported} == {"endpoint.address.ipv6", "endpoint.address.pipe"}


def test_routes_report_what_a_connection_cannot_do() -> None:
    message = route_pb2.RouteConfiguration()
    message.ParseFromString(routes("80", web=("10.1.1.1", "a")).value)
    first = message.virtual_hosts[0].routes[0]
    first.match.headers.add(name="x")
    first.route.timeout.seconds = 1
    first.route.prefix_rewrite = "/y"
    first.typed_per_filter_config["envoy.filters.http.fault"].value = b""
    message.virtual_hosts[0].request_headers_to_add.add().header.key = "k"
    message.virtual_hosts[0].routes.add(name="r").redirect.host_redirect = "z"
    decoded = decode_resource(RDS, message.SerializeToString())
    assert isinstance(decoded, RouteConfig)
    assert [route.catch_all for route in decoded.hosts[0].routes] == [False, True]
    assert [route.match for route in decoded.hosts[0].routes] == ["/* with headers", ""]
    assert {item.field for item in decoded.unsupported} == {
        "route.match.headers",
        "route.redirect",
        "route.route.prefix_rewrite",
        "route.route.timeout",
        "route.typed_per_filter_config.envoy.filters.http.fault",
        "virtual_host.request_headers_to_add",
    }
    assert {item.resource for item in decoded.unsupported} == {"80/web:80"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prefix": "/"}, "/*"),
        ({"prefix": "/api"}, "/api*"),
        ({"path": "/login"}, "/login"),
        ({"path_separated_prefix": "/api"}, "/api[/*]"),
        ({"safe_regex": {"regex": "/a.*"}}, "regex /a.*"),
        ({"prefix": "/", "grpc": {}, "headers": [{"name": "h"}]}, "/* with grpc, headers"),
    ],
)
def test_matches_in_words(fields: dict[str, object], words: str) -> None:
    message = route_pb2.RouteConfiguration(name="80")
    host = message.virtual_hosts.add(name="web", domains=["web"])
    host.routes.add(match=route_components_pb2.RouteMatch(**fields))
    decoded = decode_resource(RDS, message.SerializeToString())
    assert isinstance(decoded, RouteConfig)
    assert decoded.hosts[0].routes[0].match == words


def test_c23_listeners_with_unknown_extensions_are_taken_and_reported() -> None:
    message = listener_pb2.Listener()
    message.ParseFromString(tcp_listener("10.1.1.1", 80, a=80, b=20).value)
    other = message.filter_chains[0].filters.add(name="my.filter")
    other.typed_config.type_url, other.typed_config.value = "type.googleapis.com/my.Filter", b"\xff\xff"
    message.listener_filters.add(name="envoy.filters.listener.proxy_protocol")
    decoded = decode_resource(LDS, message.SerializeToString())
    assert isinstance(decoded, Listener)
    assert decoded.addresses == (("10.1.1.1", 80),)
    assert [item.field for item in decoded.unsupported] == [
        "listener.listener_filters.envoy.filters.listener.proxy_protocol",
        "filter_chain.filters.my.filter",
    ]
    web = decode_resource(LDS, http_listener(80, "80").value)
    assert isinstance(web, Listener)
    assert ([each.route_config for each in web.route_configs], web.unsupported) == (["80"], ())


def test_c54_the_control_plane_and_unknown_fields_are_ignored() -> None:
    message = discovery_pb2.DiscoveryResponse(type_url=CDS, version_info="1", nonce="n")
    message.resources.add(type_url=CDS, value=cluster("a").value)
    plain = decode_response(message.SerializeToString())
    message.control_plane.identifier = "istiod"
    assert decode_response(message.SerializeToString() + b"\xfa\x3f\x01x") == plain
    update = discovery_pb2.DeltaDiscoveryResponse(type_url=CDS, control_plane={"identifier": "istiod"})
    assert decode_delta_response(update.SerializeToString() + b"\xfa\x3f\x01x").type_url == CDS
    assert decode_resource(EDS, assignment("a").value + b"\xfa\x3f\x01x") == decode_resource(
        EDS, assignment("a").value
    )


def test_name_table_is_sorted_out() -> None:
    from appswitch.xds.proto import nds_pb2
    from appswitch.xds.resources import NameTable

    message = vars(nds_pb2)["NameTable"]()
    message.table["a.b"].ips.extend(["10.0.0.1", "fd00::1"])
    message.table["*.c"].ips.append("10.0.0.2")
    decoded = decode_resource(NDS, message.SerializeToString())
    assert isinstance(decoded, NameTable)
    assert [(name.host, [str(ip) for ip in name.addresses]) for name in decoded.names] == [
        ("*.c", ["10.0.0.2"]),
        ("a.b", ["10.0.0.1"]),
    ]
    assert {item.field for item in decoded.unsupported} == {"name_table.ips"}
    message.table["a.b"].ips.append("x")
    with pytest.raises(InvalidInput):
        decode_resource(NDS, message.SerializeToString())


def test_leftovers_are_said_once() -> None:
    left = leftover.Leftover("a")
    left.add("f", "i")
    left.add("f", "i")
    assert left.done() == (Unsupported("f", "a", "i"),)
