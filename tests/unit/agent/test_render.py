"""The manual's tables, byte for byte, and what odd names do to them."""

# ruff: noqa: E501 - tables are quoted as they are printed

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.rest_state import MemoryState, app, labels, manual_node1, manual_servers
from unit.agent.test_istio_inventory import REVIEWS, rows

from appswitch.agent import backends, requests
from appswitch.agent import resources as view
from appswitch.agent.cli_get import find_kind
from appswitch.agent.render import KINDS, readable, render, table, width
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_unsupported import Changed, apply, views
from appswitch.agent.resource_xds import XdsView
from appswitch.errors import UsageError
from appswitch.interceptor.counters import Count, Edge, EdgeKind
from appswitch.model import Backend, BindScope, Class, Expose, Labels, Protocol, Service, Snapshot


def shown(name: str, rows: Any, form: str = "table") -> list[str]:
    """Lines of `ax get NAME`."""
    return render(find_kind(name), rows, form).splitlines()


def test_servers_as_in_1_3_and_4_3_2() -> None:
    assert shown("servers", view.server_views(manual_servers(), "appswitch")) == [
        "NODEID  CLUSTER    APPID     PROTO  SERVICEADDR  IPV4ADDR",
        "----------------------------------------------------------------",
        "host0   appswitch  f83e8600  tcp    1.1.1.1:80   10.0.2.15:40010",
        "host0   appswitch  f880063e  tcp    1.1.1.1:80   10.0.2.15:40019",
    ]


def test_apps_as_in_4_3_1() -> None:
    dashes = "-" * (38 + 2 + 8 + 2 + 6 + 2 + 9 + 2 + 13 + 2 + 6 + 2 + 12 + 2 + 15)
    head = "NAME                                    APPID     NODEID  CLUSTER    APPIP          DRIVER  LABELS        ZONES"
    assert shown("apps", view.app_views(manual_node1(), "appswitch", "kernel")) == [
        head,
        dashes,
        "<ab856b81-7db0-4d88-8a1e-1bfbf0c5fe9f>  f00001bb  node1   appswitch  192.168.178.2  kernel  zone=default  [zone==default]",
        "<04a275bc-b9b4-4496-9c9d-a838daecdffb>  f000028e  node1   appswitch  192.168.178.2  kernel  zone=default  [zone==default]",
    ]


def test_an_app_with_everything() -> None:
    more = replace(
        app(5, "1.1.1.1", Class(Labels(frozenset({("b", "2"), ("a", "1")})), "prod", "web-sa"), name="web"),
        pid=4711,
        user=1000,
        new_netns=False,
        exposes=(Expose(80, 5000), Expose(81, 5001, IPv4Address("0.0.0.0"))),
    )
    snapshot = replace(manual_node1(), apps=(more,))
    head, _, row = shown("apps", view.app_views(snapshot, "c1", "kernel"), "wide")
    assert dict(zip(head.split(), row.replace("[a==1 b==2]", "[]").split(), strict=True)) == {
        "NAME": "web",
        "APPID": "00000005",
        "NODEID": "node1",
        "CLUSTER": "c1",
        "APPIP": "1.1.1.1",
        "DRIVER": "kernel",
        "LABELS": "a=1,b=2",
        "ZONES": "[]",
        "PID": "4711",
        "USER": "1000",
        "NETNS": "node",
        "EXPOSES": "80:5000,81:0.0.0.0:5001",
        "NAMESPACE": "prod",
        "SERVICEACCOUNT": "web-sa",
    }


def test_sockets_as_in_4_3_3() -> None:
    state = MemoryState(manual_node1(), inodes={40000: 829, 40001: 833})
    rows = state.sockets(state.snapshot())
    head, dashes, first, second = shown("sockets", rows)
    assert head.split() == ["ID", "NODEID", "APPID", "INODE", "PROTO", "FLAGS", "BINDIP", "BACKLOG"]
    assert set(dashes) == {"-"} and len(dashes) == len(head)
    assert first.split()[1:] == ["node1", "f00001bb", "829", "tcp", "0", "0.0.0.0:6000", "1"]
    assert second.split()[1:] == ["node1", "f000028e", "833", "tcp", "0", "0.0.0.0:5201", "5"]
    assert [row.id for row in rows] == [row.id for row in state.sockets(state.snapshot())]
    assert len({row.id for row in rows}) == 2


def test_proxies_as_in_4_3_4() -> None:
    rows = [
        view.ProxyView(id=1, proto="tcp", listener="10.0.0.10:6660", dialers=["0.0.0.0:0"]),
        view.ProxyView(id=2, proto="tcp", listener="192.168.0.10:36869", dialers=["0.0.0.0:0"]),
    ]
    assert shown("proxies", rows) == [
        "ID  PROTO  LISTENER            DIALERS",
        "------------------------------------------",
        "1   tcp    10.0.0.10:6660      [0.0.0.0:0]",
        "2   tcp    192.168.0.10:36869  [0.0.0.0:0]",
    ]


def test_vservices_as_in_3_1_2() -> None:
    body = b'{"name":"myvsvc","ip":"1.1.1.1","backends":["10.0.2.15"],"expose":[{"port":8000,"host_port":10000}]}'
    rows = [view.vservice_view(requests.decode_vservice(body))]
    assert shown("vservices", rows) == [
        "VSNAME  VSTYPE  VSIP     VSPORTS         VSBACKENDIPS",
        "-----------------------------------------------------",
        "myvsvc  Random  1.1.1.1  [{8000 10000}]  [10.0.2.15]",
    ]


def test_a_vservice_of_istio() -> None:
    made = requests.decode_vservice(
        b'{"name":"a","ip":"1.1.1.1","backends":["10.0.0.1:9080","10.0.0.2:9080"],"ports":[{"port":80,"target":1}]}'
    )
    weighted = tuple(replace(backend, weight=w) for backend, w in zip(made.backends, (80, 20), strict=True))
    ips = (*made.addresses, IPv4Address("1.1.1.2"))
    istio = replace(made, backends=weighted, ports_text="", origin="istio", addresses=ips)
    row = shown("vservices", [view.vservice_view(istio)], "wide")[2]
    assert row == (
        "a       Random  1.1.1.1,1.1.1.2  [{80 1}]  [10.0.0.1:9080 10.0.0.2:9080]  tcp    [80 20]  -         istio"
    )


def test_drivers_say_why_not() -> None:
    assert shown("drivers", MemoryState(manual_node1()).drivers()) == [
        "DRIVER  USABLE  INUSE  REASON",
        "-------------------------------------------------",
        "kernel  yes     yes    -",
        "user    no      no     comes with a later release",
        "ptrace  no      no     comes with a later release",
    ]


def test_backends() -> None:
    counts = {
        Edge(9, EdgeKind.APP, IPv4Address("1.1.1.1"), 80, 0xF83E8600, backend_port=40010): Count(
            opened=12, ended=10, refused=1, sent=70_000, received=12, last_failure=1
        ),
        Edge(9, EdgeKind.OUTSIDE): Count(opened=3, ended=3),
    }
    rows = backends.rows(manual_servers(), counts, {}, 90_000_000_001)
    assert shown("backends", rows) == [
        "SERVICE     BACKEND     APPID     STATE  WEIGHT  OPENED  ACTIVE  REFUSED  TIMEDOUT  RESET  SENT   RECEIVED  LASTFAILURE",
        "-" * 119,
        "1.1.1.1:80  1.1.1.1:80  f83e8600  ok     1       12      2       1        0         0      68.4K  12        2m ago",
        "1.1.1.1:80  1.1.1.1:80  f880063e  ok     1       0       0       0        0         0      0      0         -",
        "outside     -           -         -      0       3       0       0        0         0      0      0         -",
    ]
    assert shown("backends", rows, "name") == ["1.1.1.1:80/1.1.1.1:80"] * 2 + ["outside"]
    wide = shown("backends", rows, "wide")
    assert wide[0].split()[-2:] == ["DIALERS", "LASTFAILURE"] and "00000009" in wide[2]


def test_bpf() -> None:
    rows = [
        BpfView(kind="program", name="ax_connect4", id=7, memory=8192, attached=2, runs=10, nanoseconds=2444),
        BpfView(kind="program", name="ax_bind4", id=8, memory=4096, attached=2, runs=0, nanoseconds=0),
        BpfView(kind="map", name="ports", id=9, memory=3 << 20, entries=3, capacity=65536),
        BpfView(kind="map", name="pool", id=10, memory=131_136, capacity=32768),
    ]
    assert shown("bpf", rows) == [
        "KIND     NAME         ID  ATTACHED  RUNS  NANOSECONDS  NS/RUN  ENTRIES  CAPACITY  MEMORY",
        "----------------------------------------------------------------------------------------",
        "program  ax_connect4  7   2         10    2444         244     -        -         8K",
        "program  ax_bind4     8   2         0     0            -       -        -         4K",
        "map      ports        9   -         -     -            -       3        65536     3M",
        "map      pool         10  -         -     -            -       -        32768     128K",
    ]
    assert shown("bpf", rows, "name") == ["ax_connect4", "ax_bind4", "ports", "pool"]


def test_unsupported() -> None:
    item = ("cluster.lb_policy", "outbound|80||web", "destination-rule shop/web", "LEAST_REQUEST")
    rows = {("old", "", "", ""): 1.0, item: 10.0}
    apply(Changed(True, (("route.timeout", "80/web", "", ""), item)), rows, 200.0)
    assert shown("unsupported", views(rows, 205.0)) == [
        "FIELD              RESOURCE          OBJECT                     INSTEAD        SINCE",
        "---------------------------------------------------------------------------------------",
        "cluster.lb_policy  outbound|80||web  destination-rule shop/web  LEAST_REQUEST  3m ago",
        "route.timeout      80/web            -                          -              5.0s ago",
    ]
    apply(Changed(False, gone=(item, ("never there", "", "", ""))), rows, 300.0)
    assert rows == {("route.timeout", "80/web", "", ""): 200.0}


def test_istio_s_configuration() -> None:
    clusters = [line.split() for line in shown("clusters", rows("clusters"))]
    assert [REVIEWS, "9080", "v1", "outbound", "EDS", "reviews.default"] in clusters
    assert [line.split() for line in shown("endpoints", rows("endpoints")) if f"|v1|{REVIEWS}" in line] == [
        ["10.244.1.31:9080", "HEALTHY", f"outbound|9080|v1|{REVIEWS}", "1", "0", "-"]
    ]
    listeners = [re.split("  +", line) for line in shown("listeners", rows("listeners"))]
    assert ["0.0.0.0", "9080", "App: HTTP", "Route: 9080"] in listeners
    (route,) = (line for line in shown("routes", rows("routes")) if REVIEWS in line)
    domains = f"{REVIEWS}, {REVIEWS}. + 4 more"
    assert re.split("  +", route) == ["9080", f"{REVIEWS}:9080", domains, "/*", "reviews.default"]
    assert shown("xds", rows("xds"))[0].split() == ["TYPE", "NAME", "STATUS", "VERSION", "AGE"]
    assert shown("xds", rows("xds"), "name")[-1] == "rds/9080"


def test_a_nack_in_the_wide_table() -> None:
    row = XdsView(
        type="cds",
        name="a",
        status="NACKED",
        version="1",
        seconds=7200.0,
        error="no name",
        error_version="2",
        error_seconds=3.0,
    )
    never = XdsView(
        type="eds",
        name="a",
        status="REQUESTED",
        version="",
        seconds=None,
        error="",
        error_version="",
        error_seconds=None,
    )
    assert shown("xds", [row, never], "wide") == [
        "TYPE  NAME  STATUS     VERSION  AGE  ERROR    ERROR VERSION  ERROR AGE",
        "----------------------------------------------------------------------",
        "CDS   a     NACKED     1        2h   no name  2              3.0s",
        "EDS   a     REQUESTED  -        -    -        -              -",
    ]


def test_loopback_services_are_sockets_but_no_servers() -> None:
    private = Service(0xF00001BB, Protocol.TCP, 9000, 40002, scope=BindScope.LOOPBACK)
    own = Service(0xF00001BB, Protocol.UDP, 53, 40003, scope=BindScope.VIRTUAL)
    orphan = Service(1, Protocol.TCP, 1, 40004)
    snapshot = replace(manual_node1(), services=(private, own, orphan))
    assert [row.serviceaddr for row in view.server_views(snapshot, "c")] == ["192.168.178.2:53"]
    owner = snapshot.apps[0]
    assert view.socket_view(private, owner, "n", 1).bindip == "127.0.0.1:9000"
    assert view.socket_view(own, owner, "n", 1).bindip == "192.168.178.2:53"
    assert view.socket_view(private, replace(owner, uid="no-uuid"), "n", 1).flags == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_empty_table_is_two_lines(kind: Any) -> None:
    assert len(shown(kind.name, [])) == 2
    assert render(kind, [], "json") == "[]\n"
    assert yaml.safe_load(render(kind, [], "yaml")) == []
    assert render(kind, [], "name") == ""


@pytest.mark.parametrize(
    ("word", "name"),
    [(kind.name, kind.name) for kind in KINDS]
    + [("app", "apps"), ("server", "servers"), ("socket", "sockets"), ("vservice", "vservices")]
    + [("cluster", "clusters"), ("endpoint", "endpoints"), ("listener", "listeners"), ("route", "routes")]
    + [("proxy", "proxies"), ("driver", "drivers"), ("backend", "backends")],
)
def test_singular_names(word: str, name: str) -> None:
    assert find_kind(word).name == name


def test_unknown_resources() -> None:
    with pytest.raises(UsageError, match="unknown resource 'pods': one of apps, servers"):
        find_kind("pods")
    with pytest.raises(UsageError, match="which resource"):
        find_kind(None)


def test_names_are_what_other_commands_take() -> None:
    assert shown("apps", view.app_views(manual_node1(), "c", "kernel"), "name") == ["f00001bb", "f000028e"]
    assert shown("servers", view.server_views(manual_servers(), "c"), "name") == ["1.1.1.1:80"] * 2


def odd_apps(*values: str) -> Snapshot:
    """Apps with such label values."""
    apps = tuple(app(number + 1, "1.1.1.1", labels(k=value)) for number, value in enumerate(values))
    return replace(manual_node1(), apps=apps)


def test_control_characters_are_escaped_and_columns_stay() -> None:
    rows = view.app_views(
        odd_apps("\x1b[31mred\n", "back\\slash", "日本", "\u202egnp.exe", "plain"), "c", "kernel"
    )
    lines = shown("apps", rows)
    cells = [line.split("  k=")[1].split("  [")[0].strip() for line in lines[2:]]
    assert cells == ["\\x1b[31mred\\n", "back\\\\slash", "日本", "\\u202egnp.exe", "plain"]
    starts = [width(line[: line.index("[k==")]) for line in lines[2:]]
    assert len(set(starts)) == 1


anything = st.text(st.characters(exclude_characters=",=", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(anything, min_size=1, max_size=4))
def test_any_label_keeps_the_table_and_survives_json_and_yaml(values: list[str]) -> None:
    rows = view.app_views(odd_apps(*values), "c", "kernel")
    for form in ("table", "wide", "name", "json", "yaml"):
        text = render(find_kind("apps"), rows, form)
        assert all(char.isprintable() or char == "\n" for char in text)
    assert len(shown("apps", rows)) == 2 + len(rows)
    plain = msgspec.to_builtins(rows)
    assert json.loads(render(find_kind("apps"), rows, "json")) == plain
    assert yaml.safe_load(render(find_kind("apps"), rows, "yaml")) == plain


@given(st.text(max_size=30))
def test_readable_text_is_printable_and_unambiguous(text: str) -> None:
    assert readable(text).isprintable()
    assert readable(text) == text or "\\" in readable(text)


def test_combining_characters_take_no_cell() -> None:
    assert width("e\u0301") == 1
    assert table(["A", "B"], [["e\u0301e", "x"], ["日", "y"]]).splitlines()[2:] == ["e\u0301e  x", "日  y"]


def test_backends_without_port() -> None:
    body = (
        b'{"name":"a","ip":"1.1.1.1","backends":["10.0.0.1","10.0.0.2:9"],"ports":[{"port":80,"target":1}]}'
    )
    made = requests.decode_vservice(body)
    assert made.backends[1] == Backend(IPv4Address("10.0.0.2"), 9)
    assert shown("vservices", [view.vservice_view(made)])[2].endswith("[10.0.0.1 10.0.0.2:9]")
