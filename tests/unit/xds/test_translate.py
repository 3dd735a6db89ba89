"""Translation of configurations made by hand, one idea each."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from appswitch.model import Backend, LbPolicy, VService
from appswitch.xds.ads import Connected, Received
from appswitch.xds.make import (
    assignment,
    cluster,
    dns_cluster,
    http_listener,
    name_table,
    response,
    routes,
    tcp_listener,
)
from appswitch.xds.names import answers
from appswitch.xds.proto import nds_pb2
from appswitch.xds.resolution import Answer, Answers, wanted
from appswitch.xds.resources import CDS, EDS, LDS, NDS, RDS, Name, NameTable, RawResource, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translation, Translator

A = "outbound|80||a.ns.svc.cluster.local"
B = "outbound|80||b.ns.svc.cluster.local"
PLAIN: tuple[RawResource, ...] = (
    cluster(A),
    cluster(B),
    assignment(A, "10.0.0.1:8080"),
    assignment(B, "10.0.0.2:80/3", "10.0.0.3:80"),
)


class Mesh:
    """A client's state machine and translation, fed with resources."""

    def __init__(self) -> None:
        self.ads, self.translator = Sotw(), Translator("ns")
        self.ads.handle(Connected())
        self.version = 0

    def push(self, *resources: RawResource, of: str = "") -> Translation:
        """One response a type, in Istiod's order; then translate."""
        self.version += 1
        for url in (of,) if of else (CDS, EDS, LDS, RDS, "*"):
            some = [raw for raw in resources if raw.type_url == url or (url == "*" and "nds" in raw.type_url)]
            if some or of:
                self.ads.handle(Received(response(str(self.version), *some, of=of)))
        return self.again({})

    def again(self, answers: Answers) -> Translation:
        """Translate what there is, with these addresses of host names."""
        return self.translator.translate(self.ads.held.config(), answers)


def only(translation: Translation) -> VService:
    (vservice,) = translation.vservices
    return vservice


def backends(vservice: VService) -> dict[str, int]:
    return {f"{backend.address}:{backend.port}": backend.weight for backend in vservice.backends}


def fields(translation: Translation) -> set[str]:
    return {item.field for item in translation.unsupported} - {"cluster.lb_policy", "cluster.connect_timeout"}


def test_tcp_service() -> None:
    vservice = only(Mesh().push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 1})))
    assert vservice.name == "a.ns.svc.cluster.local:80"
    assert vservice.addresses == (IPv4Address("10.1.1.1"),)
    assert vservice.backends == (Backend(IPv4Address("10.0.0.1"), 8080, 1),)
    assert (vservice.ports[0].port, vservice.ports[0].target) == (80, 8080)
    assert (vservice.ports_text, vservice.origin) == ("[{80 8080}]", "istio")
    assert vservice.policy is LbPolicy.ROUND_ROBIN


def test_weights_are_those_of_the_clusters_whatever_their_size() -> None:
    vservice = only(Mesh().push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 50, B: 50})))
    assert backends(vservice) == {"10.0.0.1:8080": 200, "10.0.0.2:80": 150, "10.0.0.3:80": 50}
    assert vservice.policy is LbPolicy.RANDOM


def test_weight_zero_takes_a_cluster_out() -> None:
    vservice = only(Mesh().push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 100, B: 0})))
    assert backends(vservice) == {"10.0.0.1:8080": 1}


def test_the_share_of_a_cluster_without_endpoints_is_reported() -> None:
    parts = cluster(A), cluster(B), assignment(A, "10.0.0.1:80"), assignment(B)
    translation = Mesh().push(*parts, tcp_listener("10.1.1.1", 80, **{A: 95, B: 5}))
    assert backends(only(translation)) == {"10.0.0.1:80": 1}
    (note,) = (item for item in translation.unsupported if item.field == "weighted_clusters")
    assert note.resource == f"10.1.1.1_80: {B}"
    nobody = Mesh().push(
        cluster(A), assignment(A), *parts[1::2], tcp_listener("10.1.1.1", 80, **{A: 95, B: 5})
    )
    assert only(nobody).backends == ()
    assert "weighted_clusters" not in fields(nobody)


def test_several_vips_are_one_vservice() -> None:
    message = listener_pb2.Listener()
    message.ParseFromString(tcp_listener("10.1.1.1", 80, **{A: 1}).value)
    for address in ("10.1.1.2", "fd00::1"):
        extra = message.additional_addresses.add().address.socket_address
        extra.address, extra.port_value = address, 80
    translation = Mesh().push(*PLAIN, RawResource(LDS, message.SerializeToString()))
    assert [str(address) for address in only(translation).addresses] == ["10.1.1.1", "10.1.1.2"]
    assert fields(translation) == {"listener.address.ipv6"}


def test_http_service_by_domain_and_by_name() -> None:
    hosts = {"a.ns.svc.cluster.local": ("10.1.1.1", A), "b.ns.svc.cluster.local": ("b", B)}
    translation = Mesh().push(
        *PLAIN,
        http_listener(80, "80"),
        routes("80", **hosts),
        name_table(**{"b.ns.svc.cluster.local": "10.1.1.2"}),
    )
    found = {vservice.name: [str(ip) for ip in vservice.addresses] for vservice in translation.vservices}
    assert found == {"a.ns.svc.cluster.local:80": ["10.1.1.1"], "b.ns.svc.cluster.local:80": ["10.1.1.2"]}


def test_a_listener_of_its_own_goes_before_the_shared_one() -> None:
    translation = Mesh().push(
        *PLAIN,
        http_listener(80, "80"),
        routes("80", web=("10.1.1.1", A)),
        tcp_listener("10.1.1.1", 80, **{B: 1}),
    )
    assert backends(only(translation)) == {"10.0.0.2:80": 3, "10.0.0.3:80": 1}


def test_no_route_for_everything_refuses_and_reports() -> None:
    message = route_pb2.RouteConfiguration()
    message.ParseFromString(routes("80", web=("10.1.1.1", A)).value)
    message.virtual_hosts[0].routes[0].match.prefix = "/api"
    translation = Mesh().push(*PLAIN, http_listener(80, "80"), RawResource(RDS, message.SerializeToString()))
    assert only(translation).backends == ()
    assert fields(translation) == {"route.match.prefix", "virtual_host.routes"}


def test_an_empty_assignment_is_a_service_that_refuses() -> None:  # C18
    assert only(Mesh().push(cluster(A), assignment(A), tcp_listener("10.1.1.1", 80, **{A: 1}))).backends == ()


def test_c30_an_unknown_cluster_keeps_the_service_without_backends_and_recovers() -> None:
    mesh = Mesh()
    translation = mesh.push(
        *PLAIN, tcp_listener("10.1.1.1", 80, gone=1), tcp_listener("10.1.1.2", 80, **{A: 1})
    )
    assert [len(vservice.backends) for vservice in translation.vservices] == [0, 1]
    assert "cluster" in fields(translation)
    translation = mesh.push(*PLAIN, cluster("gone"), assignment("gone", "10.0.0.9:80"))
    assert [len(vservice.backends) for vservice in translation.vservices] == [1, 1]


def test_c30_a_removed_cluster_lives_as_long_as_a_route_names_it() -> None:
    mesh = Mesh()
    mesh.push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 1}))
    assert backends(only(mesh.push(cluster(B)))) == {"10.0.0.1:8080": 1}
    assert backends(only(mesh.push(tcp_listener("10.1.1.1", 80, **{B: 1})))) == {
        "10.0.0.2:80": 3,
        "10.0.0.3:80": 1,
    }
    assert only(mesh.push(tcp_listener("10.1.1.1", 80, **{A: 1}))).backends == ()


A_BACKENDS = {"10.0.0.1:8080": 1}
B_BACKENDS = {"10.0.0.2:80": 3, "10.0.0.3:80": 1}


def test_c29_make_before_break_never_leaves_a_service_without_backends() -> None:
    """Cluster and endpoints, then the route, then the old cluster goes; and all of it in Istiod's order."""
    mesh = Mesh()
    http = http_listener(80, "80")
    to_a, to_b = (routes("80", web=("10.1.1.1", name)) for name in (A, B))
    first = mesh.push(cluster(A), PLAIN[2], http, to_a)
    seen = [backends(only(first))]
    for part in (cluster(A), cluster(B)), (PLAIN[3],), (to_b,), (cluster(B),):
        seen.append(backends(only(mesh.push(*part))))
    assert seen == [A_BACKENDS, A_BACKENDS, A_BACKENDS, B_BACKENDS, B_BACKENDS]
    seen = [
        backends(only(mesh.push(part)))  # one response adds A and removes B, its endpoints come last
        for part in (cluster(A), http, to_a, PLAIN[2])
    ]
    assert seen == [B_BACKENDS, B_BACKENDS, B_BACKENDS, A_BACKENDS]


def test_c31_no_reader_sees_a_route_without_its_cluster_and_endpoints() -> None:
    """One push adds a service and moves another: at each of its messages each service is as before or as
    after, and a new one is not there at all before it is whole."""
    before = (cluster(A), PLAIN[2], http_listener(80, "80"), routes("80", web=("10.1.1.1", A)))
    endpoints, moved = PLAIN[3], routes("80", web=("10.1.1.1", B), other=("10.1.1.2", B))
    for order in (endpoints, moved), (moved, endpoints):
        mesh = Mesh()
        mesh.push(*before)
        for parts in (cluster(A), cluster(B)), *((part,) for part in order):
            rows = {row.name: backends(row) for row in mesh.push(*parts).vservices}
            assert rows in ({"web:80": A_BACKENDS}, {"web:80": B_BACKENDS, "other:80": B_BACKENDS})
        assert len(rows) == 2


def test_c49_names_of_the_new_kind_are_opaque() -> None:
    """xdstp:// names may hold anything: they are neither taken apart nor put in another order."""
    name = "xdstp://authority/envoy.config.cluster.v3.Cluster/outbound|80||a.ns?y=2&x=1"
    mesh = Mesh()
    translation = mesh.push(
        cluster(name), assignment(name, "10.0.0.1:80"), tcp_listener("10.1.1.1", 80, **{name: 1})
    )
    assert mesh.ads.held.types[EDS].names == (name,)
    assert only(translation).name == "10.1.1.1:80"
    assert backends(only(translation)) == {"10.0.0.1:80": 1}


def test_c27_a_new_cluster_waits_for_its_endpoints() -> None:
    mesh = Mesh()
    mesh.push(cluster(A), assignment(A, "10.0.0.1:8080"), tcp_listener("10.1.1.1", 80, **{A: 1}))
    waiting = mesh.push(cluster(A), cluster(B), tcp_listener("10.1.1.1", 80, **{B: 1}))
    assert backends(only(waiting)) == {"10.0.0.1:8080": 1}
    assert backends(only(mesh.push(assignment(B, "10.0.0.2:80")))) == {"10.0.0.2:80": 1}


def test_c28_a_listener_waits_for_its_routes() -> None:
    mesh = Mesh()
    mesh.push(*PLAIN, http_listener(80, "80"), routes("80", web=("10.1.1.1", A)))
    assert backends(only(mesh.push(http_listener(80, "other")))) == {"10.0.0.1:8080": 1}
    assert backends(only(mesh.push(routes("other", web=("10.1.1.1", B))))) == {
        "10.0.0.2:80": 3,
        "10.0.0.3:80": 1,
    }
    assert mesh.push(of=LDS).vservices == ()


def test_nothing_of_a_start_is_there_before_its_endpoints() -> None:
    assert Mesh().push(cluster(A), tcp_listener("10.1.1.1", 80, **{A: 1})).vservices == ()


def test_original_destination_stands_in_nobodys_way() -> None:
    direct = cluster("direct", type=4)
    assert Mesh().push(direct, tcp_listener("10.1.1.1", 80, direct=1)) == Translation()


def test_a_service_that_becomes_headless_is_dialled_directly() -> None:
    mesh = Mesh()
    assert mesh.push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 1})).vservices
    assert mesh.push(cluster(A, type=4)).vservices == ()


def test_a_headless_service_is_its_pods_by_name_and_by_address() -> None:
    """TCP: a listener for each pod's address.  HTTP: a virtual host whose name has all of them."""
    name = "db.ns.svc.cluster.local"
    table = vars(nds_pb2)["NameTable"]()
    table.table[name].ips.extend(["10.244.1.1", "10.244.1.2"])
    table.table[f"db-0.{name}"].ips.append("10.244.1.1")
    tcp, http = f"outbound|5432||{name}", f"outbound|80||{name}"
    translation = Mesh().push(
        cluster(tcp, type=4),
        cluster(http, type=4),
        *(tcp_listener(f"10.244.1.{number}", 5432, **{tcp: 1}) for number in (1, 2)),
        http_listener(80, "80"),
        routes("80", **{name: (f"*.{name}", http), "*.wild.example": ("10.97.0.0/24", http)}),
        RawResource(NDS, table.SerializeToString()),
    )
    assert translation.vservices == ()
    assert translation.unsupported == (), "all of it is honoured"
    assert dict(translation.names) == {
        name: (IPv4Address("10.244.1.1"), IPv4Address("10.244.1.2")),
        f"db-0.{name}": (IPv4Address("10.244.1.1"),),
    }


def test_a_headless_service_with_endpoints_is_balanced_among_its_pods_as_by_envoy() -> None:
    """Istiod's PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES: the pods' addresses are virtual ones then."""
    translation = Mesh().push(
        cluster(A),
        assignment(A, "10.244.1.1:80", "10.244.1.2:80"),
        *(tcp_listener(f"10.244.1.{number}", 80, **{A: 1}) for number in (1, 2)),
    )
    assert [str(address) for address in only(translation).addresses] == ["10.244.1.1", "10.244.1.2"]
    assert backends(only(translation)) == {"10.244.1.1:80": 1, "10.244.1.2:80": 1}


def test_a_dns_cluster_is_awaited_until_each_of_its_names_was_asked_for() -> None:
    mesh = Mesh()
    web, db = (IPv4Address(text) for text in ("10.0.0.1", "10.0.0.2"))
    listener = tcp_listener("10.1.1.1", 80, dns=1)
    cluster = dns_cluster("dns", "Web.test:8080/3", "10.0.0.9:80", "db.test.:80")
    assert mesh.push(cluster, listener).vservices == ()
    one, other = wanted(mesh.ads.held.config().clusters.values())
    assert (one.host, other.host) == ("web.test", "db.test")
    assert mesh.again({one: Answer((web,))}).vservices == ()
    found = mesh.again({one: Answer((web, db)), other: Answer((db,))})
    assert backends(only(found)) == {
        "10.0.0.1:8080": 3,
        "10.0.0.2:8080": 3,
        "10.0.0.2:80": 1,
        "10.0.0.9:80": 1,
    }
    assert fields(found) == set()
    failed = mesh.again({one: Answer((), "NXDOMAIN"), other: Answer((db,), "SERVFAIL")})
    assert backends(only(failed)) == {"10.0.0.2:80": 1, "10.0.0.9:80": 1}
    assert {item.instead for item in failed.unsupported if item.field == "endpoint.address.name"} == {
        "web.test: NXDOMAIN; the endpoint is left out",
        "db.test: SERVFAIL; its last addresses stay",
    }


def test_a_dns_cluster_with_new_names_keeps_its_endpoints_until_they_are_known() -> None:
    mesh = Mesh()
    mesh.push(dns_cluster("dns", "a.test:80"), tcp_listener("10.1.1.1", 80, dns=1))
    (lookup,) = wanted(mesh.ads.held.config().clusters.values())
    known = {lookup: Answer((IPv4Address("10.0.0.1"),))}
    assert backends(only(mesh.again(known))) == {"10.0.0.1:80": 1}
    mesh.push(dns_cluster("dns", "b.test:80"))
    assert backends(only(mesh.again(known))) == {"10.0.0.1:80": 1}


def test_a_name_that_means_the_node_itself_is_said() -> None:
    """The daemon leaves such backends out: a DNS answer opens no port of the node."""
    mesh = Mesh()
    mesh.push(dns_cluster("dns", "localhost:80"), tcp_listener("10.1.1.1", 80, dns=1))
    (lookup,) = wanted(mesh.ads.held.config().clusters.values())
    known = {lookup: Answer(tuple(map(IPv4Address, ("127.0.0.1", "169.254.169.254", "10.0.0.1"))))}
    for _ in range(2):  # the second time from what is remembered
        found = mesh.again(known).unsupported
        assert [item.instead for item in found if item.field == "endpoint.address.local"] == [
            "127.0.0.1: the endpoint is left out",
            "169.254.169.254: the endpoint is left out",
        ]


def test_logical_dns_is_one_endpoint() -> None:
    mesh = Mesh()
    mesh.push(dns_cluster("dns", "a.test:80", logical=True), tcp_listener("10.1.1.1", 80, dns=1))
    (lookup,) = wanted(mesh.ads.held.config().clusters.values())
    assert lookup.single
    assert backends(only(mesh.again({lookup: Answer((IPv4Address("10.0.0.1"),))}))) == {"10.0.0.1:80": 1}


def test_an_unchanged_cluster_is_not_computed_again() -> None:
    mesh = Mesh()
    first = mesh.push(*PLAIN, tcp_listener("10.1.1.1", 80, **{A: 1}), tcp_listener("10.1.1.2", 80, **{B: 1}))
    second = mesh.push(assignment(A, "10.0.0.7:80"))
    assert first.vservices[1] == second.vservices[1]
    assert mesh.translator._rows[IPv4Address("10.1.1.2"), 80].parts[0][1] is (
        mesh.translator._members[B].members
    )


@pytest.mark.parametrize("url", [CDS, EDS, LDS, RDS])
def test_an_empty_mesh(url: str) -> None:
    mesh = Mesh()
    mesh.ads.handle(Received(Response(url, "1", "n", ())))
    assert mesh.translator.translate(mesh.ads.held.config()) == Translation()


def test_short_names_of_kubernetes_services() -> None:
    ip = (IPv4Address("10.1.1.1"),)
    table = NameTable(
        (
            Name("a.ns.svc.cluster.local", ip, "Kubernetes", "a", "ns"),
            Name("b.other.svc.cluster.local", ip, "Kubernetes", "b", "other"),
            Name("c.example", ip, "External"),
        )
    )
    assert [name for name, _ in answers(table, "ns", "svc.cluster.local")] == [
        *("a", "a.ns", "a.ns.svc", "a.ns.svc.cluster.local"),
        *("b.other", "b.other.svc", "b.other.svc.cluster.local"),
        "c.example",
    ]
    assert answers(None, "ns", "svc.cluster.local") == ()
