"""What `ax explain` prints, to the letter."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

from worlds import LABELS, NODE_IP, OUTSIDE, World

from appswitch.agent.explain import client_text, explain_dict, explain_lines
from appswitch.interceptor.decision import decide
from appswitch.model import App, Backend, Class, Destination, Labels, PortMap, Protocol, Service, VService

VIP = IPv4Address("241.1.1.1")


def world() -> World:
    made = World.settled()
    backends = (
        Backend(IPv4Address("1.1.1.1"), weight=2),
        Backend(IPv4Address("2.2.2.2")),
        Backend(OUTSIDE, 8080, 3),
    )
    ports = (PortMap(80, 80), PortMap(82, 82))
    made.registry.create_vservice(VService("shop", (VIP,), ports, backends))
    return made


def lines(client: App | Class, address: IPv4Address | str, port: int = 80) -> list[str]:
    destination = Destination(IPv4Address(address), port)
    return explain_lines(decide(world().registry.snapshot, client, destination), client, destination)


def test_balanced() -> None:
    assert lines(Class(LABELS[0]), VIP) == [
        "any app with zone=default -> 241.1.1.1:80/tcp",
        "verdict: connected to one of 2, Random",
        "rule: vservice shop",
        "why: vservice shop: 2 of 4 may be reached, Random",
        "CANDIDATE           APPID     WEIGHT  SHARE  STATE",
        "1.1.1.1:80          00000001  2       40.0%  ok",
        "1.1.1.1:80          00000002  2       -      no shared label",
        "2.2.2.2:80          00000003  1       -      no shared label",
        "93.184.216.34:8080  -         3       60.0%  ok",
    ]


def test_one() -> None:
    assert lines(Class(LABELS[2]), "2.2.2.2")[1] == "verdict: connected to 2.2.2.2:80"


def test_refused() -> None:
    assert lines(Class(LABELS[0]), "2.2.2.2") == [
        "any app with zone=default -> 2.2.2.2:80/tcp",
        "verdict: refused, EACCES (permission denied)",
        "rule: app 2.2.2.2",
        "why: no app behind 2.2.2.2 shares a label with zone=default",
        "CANDIDATE   APPID     WEIGHT  SHARE  STATE",
        "2.2.2.2:80  00000003  1       -      no shared label",
    ]


def test_not_listening() -> None:
    assert lines(Class(LABELS[2]), "2.2.2.2", 99)[1:] == [
        "verdict: refused, ECONNREFUSED (connection refused)",
        "rule: app 2.2.2.2",
        "why: nobody behind 2.2.2.2 listens on port 99",
        "CANDIDATE   APPID     WEIGHT  SHARE  STATE",
        "2.2.2.2:99  00000003  1       -      not listening",
    ]


def test_outside() -> None:
    assert lines(Class(), OUTSIDE, 443)[1:] == [
        "verdict: direct to 93.184.216.34:443",
        "rule: outside",
        "why: nothing of ours: dialled directly from the node",
    ]


def test_loopback() -> None:
    made = world()
    made.registry.listener_up(Service(5, Protocol.TCP, 99, 40999))
    destination = Destination(IPv4Address("127.0.0.1"), 99)
    client = made.registry.app(5)
    assert explain_lines(decide(made.registry.snapshot, client, destination), client, destination)[1:3] == [
        "verdict: connected to 127.0.0.1:99",
        "rule: loopback",
    ]


def test_plain_data() -> None:
    destination = Destination(VIP, 80)
    client = Class(LABELS[0])
    plain = explain_dict(decide(world().registry.snapshot, client, destination), client, destination)
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["verdict"], plain["error"], plain["policy"]) == ("balance", "", "Random")
    assert [c["share"] for c in plain["candidates"]] == [0.4, 0.0, 0.0, 0.6]
    assert plain["candidates"][1] == {
        "appid": "00000002",
        "address": "1.1.1.1:80",
        "weight": 2,
        "share": 0.0,
        "eligible": False,
        "live": True,
        "state": "no shared label",
    }


def test_who() -> None:
    app = App(0xF00001BB, "", Class(LABELS[1]), NODE_IP, "web")
    assert client_text(app) == "app f00001bb (web, role=prod)"
    assert client_text(Class(Labels(frozenset()))) == "any app with no labels"


def test_a_backend_that_failed() -> None:
    ages = {(int(OUTSIDE), 8080): 0.42}
    destination = Destination(VIP, 80)

    def shown(labels: Labels) -> list[str]:
        verdict = decide(world().registry.snapshot, Class(labels), destination, ages)
        return explain_lines(verdict, Class(labels), destination)

    assert shown(LABELS[0])[1] == "verdict: connected to 1.1.1.1:80"
    assert shown(LABELS[0])[-1] == "93.184.216.34:8080  -         3       -       failed 0.4 s ago"
    alone = shown(Labels(frozenset({("nobody", "else")})))
    assert alone[1] == "verdict: connected to 93.184.216.34:8080"
    assert alone[-1] == "93.184.216.34:8080  -         3       100.0%  failed 0.4 s ago, nobody else is there"


def test_waiting() -> None:
    client = App(5, "", Class(LABELS[2]), NODE_IP, connect_wait=1.5)
    assert lines(client, "2.2.2.2", 81)[1:4] == [
        "verdict: waits 1.5 s at most for a listener, then ECONNREFUSED",
        "rule: app 2.2.2.2",
        "why: nobody behind 2.2.2.2 listens on port 81",
    ]
    destination = Destination(IPv4Address("2.2.2.2"), 81)
    plain = explain_dict(decide(world().registry.snapshot, client, destination), client, destination)
    assert (plain["verdict"], plain["wait"], plain["error"]) == ("wait", 1.5, "ECONNREFUSED")


def test_a_patient_dial() -> None:
    made = World.settled()
    made.registry.create_vservice(VService("out", (VIP,), (PortMap(80, 80),), (Backend(OUTSIDE),)))
    client, destination = App(5, "", Class(LABELS[2]), NODE_IP, connect_wait=2.0), Destination(VIP, 80)
    verdict = decide(made.registry.snapshot, client, destination)
    assert explain_lines(verdict, client, destination)[1] == (
        "verdict: connected to 93.184.216.34:80, dialled again for 2 s if it refuses"
    )
