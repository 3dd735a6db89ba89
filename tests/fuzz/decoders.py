"""Every decoder of bytes from outside: seeds, how they are changed, and what alone it may raise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from worlds import OUTBOUND, POLICIES

from appswitch.agent import (
    containers,
    dns_addresses,
    dns_answer,
    dns_message,
    hello,
    istio_options,
    istio_wire,
    journal,
    oci,
    requests,
    resource_origin,
)
from appswitch.agent.dns_names import NameTable
from appswitch.agent.resource_unsupported import Changed
from appswitch.agent.settings_load import HelpWanted, load
from appswitch.errors import AppSwitchError, InvalidInput, UsageError
from appswitch.interceptor import abi, events, inject_wire
from appswitch.model import App, Backend, Class, Labels, PortMap, Snapshot, VService
from appswitch.xds import decode as xds
from appswitch.xds import transport
from appswitch.xds.resources import CDS, EDS, LDS, NDS, RDS
from fuzz import mutate

FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True)
class Decoder:
    """One decoder under test."""

    seeds: Callable[[], Sequence[bytes]]
    mutate: mutate.Mutator
    decode: Callable[[bytes], object]
    raises: tuple[type[Exception], ...] = (InvalidInput,)


def _hellos() -> list[bytes]:
    whole = {
        "version": 1,
        "command": ["nginx", "-g", "daemon off;"],
        "cwd": "/srv",
        "ip": "1.1.1.1",
        "name": "web.prod",
        "labels": "role=test,zone=a",
        "expose": ["80:5000", "81:0.0.0.0:5001"],
        "user": "alice",
        "interface": "eth0",
        "new_netns": True,
        "dns_override": False,
        "namespace": "default",
        "service_account": "sa",
        "lonely": True,
        "kept": [3],
        "closed": [4, 5],
        "connect_wait": "1m30s",
        "nameservers": ["10.0.0.53", "127.0.0.1"],
    }
    return [json.dumps(fields).encode() for fields in (whole, {"version": 1, "command": ["true"]})]


def _bodies() -> list[bytes]:
    whole = {
        "name": "db",
        "ip": "8.8.4.4",
        "backends": ["10.0.2.15", "1.1.1.1:80"],
        "lbtype": "RoundRobin",
        "ports": [{"port": 80, "target": 8000}],
        "source_ip": "10.0.2.15",
        "external": False,
    }
    older = {"name": "a", "backends": ["1.2.3.4:5"], "expose": [{"port": 80, "host_port": 9999}]}
    return [json.dumps(fields).encode() for fields in (whole, older)]


def _app_bodies() -> list[bytes]:
    whole = {
        "target": "/kubepods/pod1",
        "ip": "1.1.1.1",
        "name": "web",
        "labels": "role=a,zone=b",
        "namespace": "default",
        "service_account": "sa",
    }
    return [json.dumps(fields).encode() for fields in (whole, {"target": "4711"})]


_OCI_STATE = {
    "ociVersion": "1.0.2",
    "id": "web",
    "status": "creating",
    "pid": 4711,
    "bundle": "/b",
    "annotations": {"appswitch.io/ip": "1.1.1.1", "appswitch.io/labels": "role=a", "other": "x"},
}


def _oci_states() -> list[bytes]:
    return [json.dumps(fields).encode() for fields in (_OCI_STATE, {"id": "x", "pid": 1})]


def _oci_processes() -> list[bytes]:
    whole = {"fds": ["seccompFd"], "pid": 4711, "metadata": "name=web namespace=a", "state": _OCI_STATE}
    return [json.dumps(fields).encode() for fields in (whole, {**whole, "state": {}, "metadata": ""})]


_LABELS = Labels(frozenset({("role", "test")}))
_VSERVICE = VService(
    name="db",
    addresses=(IPv4Address("8.8.4.4"),),
    ports=(PortMap(80, 8000),),
    backends=(Backend(IPv4Address("1.1.1.1"), 80), Backend(IPv4Address("2.2.2.2"), 0)),
    source_ip=IPv4Address("10.0.2.15"),
    ports_text="[{80 8000}]",
)
_NAMES: journal.Names = (("a.b", (IPv4Address("1.2.3.4"), IPv4Address("5.6.7.8"))),)


def _journal() -> list[bytes]:
    app = App(id=0xF0000001, uid="u", app_class=Class(labels=_LABELS), ip=IPv4Address("1.1.1.1"), name="web")
    entries = (
        journal.Entry(1, app=journal.AppRecord(app, 3)),
        journal.Entry(1, ended=7),
        journal.Entry(1, vservice=_VSERVICE),
        journal.Entry(1, deleted="db"),
    )
    return [journal.encode(entry).rstrip() for entry in entries]


def _journal_line(data: bytes) -> object:
    journal.replay(data)  # raises nothing at all
    return journal.decode(data)


def _istio_tables() -> list[bytes]:
    record = journal.IstioRecord(1, (_VSERVICE,), _NAMES, POLICIES, OUTBOUND[2])
    return [msgspec.json.encode(record, enc_hook=str)]


def _reports() -> list[bytes]:
    change = istio_wire.Change(True, (_VSERVICE,), ("gone",), _NAMES, POLICIES, OUTBOUND[2], 1)
    undone = (("cluster.lb_policy", "web", "", "Random"),)
    reports: tuple[dict[str, Any], ...] = (
        {"change": change},
        {"event": "istio.nack", "fields": {"a": 1, "b": None}},
        {"unsupported": Changed(False, undone, undone)},
        {"answer": istio_wire.Answer(7, b'{"name":"a"}', next="a", error="none")},
    )
    return [_message(istio_wire.Report(istio_wire.VERSION, **report)) for report in reports]


def _orders() -> list[bytes]:
    asked = istio_wire.Question(7, istio_wire.PageWanted("clusters", "a"))
    origin = istio_wire.Question(8, istio_wire.OriginWanted(IPv4Address("10.96.1.3"), 9080))
    orders: tuple[dict[str, Any], ...] = ({"taken": 3}, {"question": asked}, {"question": origin})
    return [_message(istio_wire.Order(istio_wire.VERSION, **order)) for order in orders]


def _message(message: istio_wire.Report | istio_wire.Order) -> bytes:
    return istio_wire.frame(message)[istio_wire.HEADER :]


def _origins() -> list[bytes]:
    source = resource_origin.SourceView(type="cds", name="a", weight=3, version="1", seconds=2.5)
    endpoint = resource_origin.OriginEndpoint(
        address="10.0.0.1:80", cluster="a", weight=1, priority=0, locality="r/z", health="HEALTHY"
    )
    return [msgspec.json.encode(resource_origin.OriginView(sources=[source], endpoints=[endpoint])), b"null"]


def _holder_requests() -> list[bytes]:
    questions = (
        {"add": {"id": 5, "class": 2, "ip": "1.1.1.1"}},
        {"remove": {"id": 5}},
        {"list": {"after": 4}},
    )
    return [json.dumps({"version": 1, **question}).encode() for question in (*questions, {"adopt": {}})]


def _holder_replies() -> list[bytes]:
    apps = [{"id": 5, "class": 2, "ip": "1.1.1.1"}, {"id": 6, "class": 0, "ip": "2.2.2.2"}]
    error = {"code": "full", "message": "no room"}
    replies = ({"pid": 7, "apps": apps, "more": True, "answered": 1}, {"error": error}, {})
    return [json.dumps({"version": 1, **reply}).encode() for reply in replies]


def _events() -> list[bytes]:
    return [
        abi.EVENT.pack(kind, 7, IPv4Address("1.1.1.1").packed, 3, 80, 40000, protocol, scope, 13, 99, 5)
        for kind, protocol, scope in ((1, 6, 0), (2, 17, 1), (3, 6, 2), (4, 6, 0), (5, 17, 0), (6, 6, 1))
    ]


def _event(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Mostly whole records, their small fields about their limits."""
    if random.random() < 0.2:
        return mutate.bytewise(random, seeds)
    data = bytearray(random.choice(seeds))
    for _ in range(random.randrange(1, 4)):
        data[random.randrange(len(data))] = random.choice((0, 1, 2, 3, 5, 6, 7, 17, 128, 255))
    return bytes(data)


_TABLE = NameTable.build(Snapshot("host0", IPv4Address("10.0.2.15"), vservices=(_VSERVICE,), names=_NAMES))


def _queries() -> list[bytes]:
    def query(name: str, qtype: int = 1, extra: bytes = b"", count: int = 0, flags: int = 0x0100) -> bytes:
        labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".") if part)
        head = bytes((0x12, 0x34)) + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0" + count.to_bytes(2, "big")
        return head + labels + b"\0" + qtype.to_bytes(2, "big") + b"\0\1" + extra

    opt = b"\0\0\x29\x10\0\0\0\x80\0\0\0"
    names = (
        "db",
        "db.appswitch.local",
        "a.b",
        "example.com",
        "4.4.8.8.in-addr.arpa",
        "localhost",
        "",
        "x" * 63,
    )
    return [
        *(query(name) for name in names),
        *(query("db", qtype, opt, 1) for qtype in (1, 28, 255, 12, 6, 41, 252)),
        query("appswitch.local", 6),
        query("db", flags=0),
    ]


def _answer(data: bytes) -> object:
    said = dns_answer.answer(data, _TABLE, "appswitch.local", tcp=len(data) % 2 == 0)
    if isinstance(said, dns_message.Forward):
        return dns_answer.servfail(said)
    assert len(said.message) <= dns_message.MAX_TCP
    return said


_ASKED = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"


def _replies() -> list[bytes]:
    body = _ASKED[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\1\2\3\4"
    return [bytes((0x12, 0x34, 0x81, flags)) + b"\0\1\0\1\0\0\0\0" + body for flags in (0x80, 0x83, 2)]


def _reply(data: bytes) -> object:
    """As dns_forward.py does with what another server sends."""
    asked = dns_message.Forward(_ASKED, "example.com", len(_ASKED), 512)
    if not dns_message.is_reply(asked, data, 0x1234):
        raise InvalidInput("not the answer")
    dns_message.reply_rcode(data)
    dns_message.is_truncated(data)
    return dns_message.fitted(asked, data)


def _dns_addresses(data: bytes) -> object:
    """As istio_names.py does with a reply that dns_forward.py let through."""
    asked = dns_addresses.question("example.com")
    return dns_addresses.decode_reply(asked, data)


def _istio_options() -> list[bytes]:
    whole = istio_options.IstioOptions(
        "istiod:15012",
        locality=("r", "z", "s"),
        metadata=(("SERVICE_ACCOUNT", "web"),),
        token="/var/run/secrets/tokens/istio-token",
        dns_servers=("10.0.0.53:53",),
    )
    return [istio_options.encode(whole).encode()]


def _options(data: bytes) -> object:
    return istio_options.servers(istio_options.decode(_text(data)))


def _tokens() -> list[bytes]:
    claims = {"sub": "system:serviceaccount:shop:web", "aud": ["istio-ca"], "exp": 1.5e9}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return [b"e30." + payload + b".signature"]


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


@lru_cache(maxsize=2)
def _pushes(*, delta: bool = False) -> tuple[bytes, ...]:
    folders = (
        each for each in sorted((FIXTURES / "istiod").iterdir()) if each.name.endswith("-delta") is delta
    )
    return tuple(path.read_bytes() for folder in folders for path in sorted(folder.glob("*.binpb")))


def _small_pushes() -> list[bytes]:
    return [push for push in _pushes() if len(push) < 6000]


def _small_updates() -> list[bytes]:
    return [push for push in _pushes(delta=True) if len(push) < 6000]


def _resources(url: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        found = {
            resource.value
            for push in _pushes()
            for resource in xds.decode_response(push).resources
            if resource.type_url == url and len(resource.value) < 4000
        }
        return sorted(found)

    return seeds


def _resource(url: str) -> Decoder:
    return Decoder(_resources(url), mutate.as_protobuf, lambda data: xds.decode_resource(url, data))


def _settings() -> list[bytes]:
    lines = (
        "--rest-port=1",
        "--node-name host0",
        "--dns=false",
        "--ports 40000-40999,50000",
        "--driver kernel",
    )
    more = ("--istio istiod:15010 --istio-node-id a~b", "--dns-domain x.y", "--config /nonexistent")
    return [line.encode() for line in (*lines, *more, " ".join(lines))]


def _load(data: bytes) -> object:
    words = data.decode(errors="replace").replace("\0", "").split(" ")
    if any("/" in word for word in words):  # no files of this machine
        raise InvalidInput("a path")
    return load(words, {})


DECODERS: dict[str, Decoder] = {
    "hello": Decoder(_hellos, mutate.as_json, hello.decode),
    "events": Decoder(_events, _event, events.decode),
    "rest": Decoder(_bodies, mutate.as_json, requests.decode_vservice),
    "explain": Decoder(
        lambda: [b"destination=1.1.1.1:80&from=f0000001", b"destination=web&labels=a=b,c=d"],
        mutate.bytewise,
        lambda data: requests.decode_explain(dict(parse_qsl(data.decode("latin-1"), keep_blank_values=True))),
    ),
    "rest-app": Decoder(_app_bodies, mutate.as_json, requests.decode_app),
    "oci-state": Decoder(_oci_states, mutate.as_json, lambda data: oci.wishes_of(oci.decode_state(data))),
    "oci-process": Decoder(
        _oci_processes, mutate.as_json, lambda data: oci.request(oci.decode_process_state(data))
    ),
    "runtime-state": Decoder(
        lambda: [b'{"id": "web", "init_process_pid": 4711, "config": {}}', b'{"pid": 4711, "bundle": "/b"}'],
        mutate.as_json,
        containers.decode_state,
    ),
    "dns": Decoder(_queries, mutate.bytewise, _answer),
    "dns-reply": Decoder(_replies, mutate.bytewise, _reply),
    "dns-addresses": Decoder(_replies, mutate.bytewise, _dns_addresses),
    "journal": Decoder(_journal, mutate.as_json, _journal_line),
    "istio-table": Decoder(_istio_tables, mutate.as_json, journal.decode_istio),
    "istio-report": Decoder(_reports, mutate.as_msgpack, istio_wire.decode),
    "istio-order": Decoder(_orders, mutate.as_msgpack, istio_wire.decode_order),
    "istio-origin": Decoder(_origins, mutate.as_json, resource_origin.decode),
    "holder-request": Decoder(_holder_requests, mutate.as_json, inject_wire.decode_request),
    "holder-reply": Decoder(_holder_replies, mutate.as_json, inject_wire.decode_reply),
    "settings": Decoder(_settings, mutate.bytewise, _load, (UsageError, HelpWanted)),
    "xds-response": Decoder(_small_pushes, mutate.as_protobuf, xds.decode_response),
    "xds-delta-response": Decoder(_small_updates, mutate.as_protobuf, xds.decode_delta_response),
    "istio-options": Decoder(_istio_options, mutate.as_json, _options, (InvalidInput, UsageError)),
    "istio-token": Decoder(_tokens, mutate.bytewise, lambda data: transport.read_claims(_text(data))),
    "xds-cluster": _resource(CDS),
    "xds-assignment": _resource(EDS),
    "xds-listener": _resource(LDS),
    "xds-route": _resource(RDS),
    "xds-names": _resource(NDS),
}
assert all(
    issubclass(kind, AppSwitchError | HelpWanted) for each in DECODERS.values() for kind in each.raises
)
