"""REST over real sockets: what is answered, and that no request ends the server."""

from __future__ import annotations

import asyncio
import socket
import stat
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.rest_state import MemoryState, app, labels, manual_node1, manual_servers, serve

from appswitch.agent import api, requests
from appswitch.agent.api_explain import find_client, find_destination
from appswitch.agent.rest import Rest
from appswitch.errors import AppSwitchError, Conflict, Denied, Exhausted, InvalidInput, NotFound, Unsupported
from appswitch.model import Backend, Class, LbPolicy, PortMap

MYVSVC = {"name": "myvsvc", "ip": "1.1.1.1", "backends": ["10.0.2.15"]}
EXPOSED = {**MYVSVC, "expose": [{"port": 8000, "host_port": 10000}]}


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Talk:
    """Requests to one server, by the Unix socket or by TCP; answers are (status, decoded body)."""

    def __init__(self, run_dir: Path, port: int = 0) -> None:
        self.path, self.port = run_dir / "api.sock", port

    async def __call__(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        connector = None if self.port else aiohttp.UnixConnector(str(self.path))
        base = f"http://127.0.0.1:{self.port}" if self.port else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, base + path, **more) as answer,
        ):
            content = await answer.read()
            return answer.status, msgspec.json.decode(content) if content else None


def test_lists_are_of_the_snapshot(tmp_path: Path) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        status, servers = await talk("GET", "/v1/servers")
        assert status == 200
        assert [(s["appid"], s["serviceaddr"], s["ipv4addr"]) for s in servers] == [
            ("f83e8600", "1.1.1.1:80", "10.0.2.15:40010"),
            ("f880063e", "1.1.1.1:80", "10.0.2.15:40019"),
        ]
        _, apps = await talk("GET", "/v1/apps")
        assert [(a["labels"], a["zones"]) for a in apps] == [
            (["role=prod"], ["role==prod"]),
            (["role=test"], ["role==test"]),
        ]
        assert await talk("GET", "/v1/proxies") == (200, [])
        _, drivers = await talk("GET", "/v1/drivers")
        assert [(d["name"], d["usable"]) for d in drivers] == [
            ("kernel", True),
            ("user", False),
            ("ptrace", False),
        ]
        assert (await talk("GET", "/v1/health"))[1]["status"] == "ok"

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


def test_a_vservice_from_creation_to_deletion(tmp_path: Path) -> None:
    state = MemoryState(manual_servers())
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        status, made = await talk("POST", "/v1/vservices", json=EXPOSED)
        assert (status, made["ports_text"], made["ports"]) == (
            201,
            "[{8000 10000}]",
            [{"port": 8000, "target": 8000}],
        )
        assert await talk("GET", "/v1/vservices") == (200, [made])
        assert await talk("GET", "/v1/vservices/myvsvc") == (200, made)
        status, error = await talk("POST", "/v1/vservices", json=EXPOSED)
        assert (status, error["error"]) == (409, "conflict")
        status, error = await talk("POST", "/v1/vservices", json={**EXPOSED, "name": "other"})
        assert (status, error["message"]) == (409, "1.1.1.1:8000 is taken by vservice 'myvsvc'")
        assert await talk("DELETE", "/v1/vservices/myvsvc") == (204, None)
        status, error = await talk("DELETE", "/v1/vservices/myvsvc")
        assert (status, error["error"], error["message"]) == (404, "not-found", "no vservice 'myvsvc'")
        assert (await talk("GET", "/v1/vservices/myvsvc"))[0] == 404

    assert serve(state, tmp_path, 0, dialogue) == []


def test_names_of_istio_fit_into_a_path(tmp_path: Path) -> None:
    name = "outbound|9080||reviews.default.svc.cluster.local/ü"
    vservice = replace(requests.decode_vservice(msgspec.json.encode(EXPOSED)), name=name, origin="istio")
    state = MemoryState(replace(manual_servers(), vservices=(vservice,)))
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        from urllib.parse import quote

        import yarl

        url = yarl.URL("http://localhost/v1/vservices/" + quote(name, safe=""), encoded=True)
        connector = aiohttp.UnixConnector(str(talk.path))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
            assert (await answer.json())["name"] == name

    assert serve(state, tmp_path, 0, dialogue) == []


def test_tcp_is_read_only(tmp_path: Path) -> None:
    port = free_port()
    state = MemoryState(manual_servers())
    talk = Talk(tmp_path, port)

    async def dialogue() -> None:
        assert (await talk("GET", "/v1/servers"))[0] == 200
        assert (await talk("HEAD", "/v1/servers"))[0] == 200
        for method, path in (("POST", "/v1/vservices"), ("DELETE", "/v1/vservices/x"), ("PUT", "/v1/apps")):
            status, error = await talk(method, path, json=EXPOSED)
            assert (status, error["error"]) == (403, "denied")
            assert "Unix socket" in error["message"]
        status, error = await talk("GET", "/v1/servers", headers={"Host": "evil.example:6664"})
        assert (status, error["hint"]) == (403, "use http://127.0.0.1:PORT")
        assert (await talk("GET", "/v1/servers", headers={"Host": "localhost:6664"}))[0] == 200
        assert (await talk("GET", "/v1/servers", headers={"Host": "[::1]:6664"}))[0] == 200

    assert serve(state, tmp_path, port, dialogue) == []
    assert state.registry.vservices == ()


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "invalid"),
        (b"{", 400, "invalid"),
        (b"\xff\xfe", 400, "invalid"),
        (b"[" * 50_000, 400, "invalid"),
        (b'{"name": "a", "ip": "1.1.1.1", "backends": ["1.1.1.2"], "colour": "red"}', 400, "invalid"),
        (b"x" * (requests.MAX_BODY + 1), 413, "too-large"),
    ],
)
def test_bad_bodies_are_refused_and_the_server_goes_on(
    tmp_path: Path, body: bytes, status: int, word: str
) -> None:
    talk = Talk(tmp_path)
    headers = {"Content-Type": "application/json"}

    async def dialogue() -> None:
        got, error = await talk("POST", "/v1/vservices", data=body, headers=headers)
        assert (got, error["error"]) == (status, word)
        assert set(error) == {"error", "message", "hint"}
        assert (await talk("POST", "/v1/vservices", json=EXPOSED))[0] == 201

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


def test_what_aiohttp_refuses_has_the_same_shape(tmp_path: Path) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        for method, path, more, status, word in (
            ("GET", "/v2", {}, 404, "not-found"),
            ("PUT", "/v1/vservices", {}, 405, "method"),
            ("POST", "/v1/vservices", {"data": {"name": "a"}}, 415, "media-type"),
            ("GET", "/v1/apps?all=1", {}, 400, "invalid"),
            ("GET", "/v1/explain", {}, 400, "invalid"),
            ("GET", "/v1/explain?destination=1.1.1.1&destination=2.2.2.2", {}, 400, "invalid"),
        ):
            got, error = await talk(method, path, **more)
            assert (got, error["error"]) == (status, word), path
            assert set(error) == {"error", "message", "hint"}

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


def test_text_that_is_no_http_ends_only_its_connection(tmp_path: Path) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        for noise in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
            reader, writer = await asyncio.open_unix_connection(str(talk.path))
            writer.write(noise)
            if noise[:1] == b"A":
                writer.write_eof()
            assert b" 200 " not in await reader.read(200)
            writer.close()
        assert (await talk("GET", "/v1/apps"))[0] == 200

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


def test_a_slow_body_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "BODY_TIMEOUT", 0.05)
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        reader, writer = await asyncio.open_unix_connection(str(talk.path))
        writer.write(b"POST /v1/vservices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 10\r\n\r\n{")
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        (Exhausted("table keys is full"), 507, "exhausted"),
        (Denied("no"), 403, "denied"),
        (Unsupported("no"), 501, "unsupported"),
        (AppSwitchError("odd"), 500, "error"),
        (RuntimeError("secret"), 500, "internal"),
    ],
)
def test_errors_of_the_state_become_statuses(
    tmp_path: Path, fault: Exception, status: int, word: str
) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        got, error = await talk("POST", "/v1/vservices", json=EXPOSED)
        assert (got, error["error"]) == (status, word)
        assert "secret" not in error["message"]

    failures = serve(MemoryState(manual_servers(), fault=fault), tmp_path, 0, dialogue)
    assert failures == (["POST /v1/vservices"] if word == "internal" else [])


def test_the_socket_file(tmp_path: Path) -> None:
    """It replaces a stale one, only its group may use it, and it goes at the end."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def dialogue() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await Talk(tmp_path)("GET", "/v1/apps"))[0] == 200

    serve(MemoryState(manual_servers()), tmp_path, 0, dialogue)
    assert not path.exists()


def test_what_cannot_be_listened_on(tmp_path: Path) -> None:
    (tmp_path / "api.sock").write_text("not a socket")

    async def start(run_dir: Path, port: int) -> None:
        await Rest(MemoryState(manual_servers()), "0", run_dir / "api.sock", port, lambda *_: None).start()

    with pytest.raises(Conflict, match="cannot listen"):
        asyncio.run(start(tmp_path, 0))
    assert (tmp_path / "api.sock").read_text() == "not a socket"
    with pytest.raises(Unsupported, match="cannot listen"):
        asyncio.run(start(tmp_path / "missing", 0))
    with socket.socket() as taken, pytest.raises(Conflict, match="choose another with --rest-port"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / "run").mkdir()
        asyncio.run(start(tmp_path / "run", taken.getsockname()[1]))
    assert list((tmp_path / "run").iterdir()) == []


# --- the decoder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "-x"}, "name '-x'"),
        ({"name": "a b"}, "name 'a b'"),
        ({"name": ""}, "name"),
        ({"ip": "1.1.1"}, "ip '1.1.1'"),
        ({"ip": "::1"}, "ip '::1'"),
        ({"ip": "127.0.0.1"}, "loopback"),
        ({"ip": "224.0.0.1"}, "multicast"),
        ({"ip": ""}, "ip ''"),
        ({"backends": []}, "backends"),
        ({"backends": ["host"]}, "backend 'host'"),
        ({"backends": ["10.0.2.15:0"]}, "backend port: '0'"),
        ({"backends": ["10.0.2.15:"]}, "backend port: ''"),
        ({"backends": ["10.0.2.15", "10.0.2.15"]}, "twice"),
        ({"backends": ["10.0.0.1"] * 1025}, "backends"),
        ({"expose": []}, "ports: a vservice needs at least one"),
        ({"expose": [{"port": 0, "host_port": 1}]}, "expose"),
        ({"expose": [{"port": 8000, "host_port": 1}, {"port": 8000, "host_port": 2}]}, "8000 is named twice"),
        ({"ports": [{"port": 80, "target": 8000}]}, "two spellings"),
        ({"lbtype": "random"}, "lbtype 'random' is not one of Random, RoundRobin"),
        ({"source_ip": "x"}, "source-ip 'x'"),
        ({"external": True}, "later release"),
        ({"external": "yes"}, "external"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match="(?s).*" + reason.replace("[", "\\[")):
        requests.decode_vservice(msgspec.json.encode(EXPOSED | change))


def test_a_whole_request() -> None:
    body = {
        "name": "Web.Prod",
        "ip": "1.1.1.1",
        "backends": ["10.0.2.15", "10.0.2.16:9000"],
        "ports": [{"port": 80, "target": 8000}, {"port": 443, "target": 8443}],
        "lbtype": "RoundRobin",
        "source_ip": "10.0.2.15",
    }
    made = requests.decode_vservice(msgspec.json.encode(body))
    assert made.name == "web.prod"
    assert made.ports == (PortMap(80, 8000), PortMap(443, 8443))
    assert made.ports_text == "[{80 8000} {443 8443}]"
    assert made.backends == (Backend(IPv4Address("10.0.2.15")), Backend(IPv4Address("10.0.2.16"), 9000))
    assert (made.policy, made.source_ip, made.origin) == (
        LbPolicy.ROUND_ROBIN,
        IPv4Address("10.0.2.15"),
        "user",
    )


def test_without_address_the_registry_makes_one() -> None:
    body = {name: value for name, value in EXPOSED.items() if name != "ip"}
    assert requests.decode_vservice(msgspec.json.encode(body)).addresses == ()


def test_a_source_ip_must_be_this_nodes(tmp_path: Path) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        status, error = await talk("POST", "/v1/vservices", json={**EXPOSED, "source_ip": "10.9.9.9"})
        assert (status, error["message"]) == (400, "source-ip 10.9.9.9 is not an address of this node")
        assert (await talk("POST", "/v1/vservices", json={**EXPOSED, "source_ip": "10.0.2.15"}))[0] == 201

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_invalid_input(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        requests.decode_vservice(body)


@given(
    st.dictionaries(st.sampled_from([*MYVSVC, "ports", "expose", "lbtype", "source_ip", "x"]), json_values)
)
def test_any_json_raises_only_invalid_input(change: dict[str, Any]) -> None:
    try:
        requests.decode_vservice(msgspec.json.encode(EXPOSED | change))
    except InvalidInput as error:
        assert str(error)


@given(
    st.text(max_size=30),
    st.lists(st.text(max_size=20), max_size=3),
    st.text(max_size=10),
    st.lists(st.tuples(st.integers(), st.integers()), max_size=3),
)
def test_any_values_raise_only_invalid_input(
    ip: str, backends: list[str], name: str, ports: list[Any]
) -> None:
    pairs = [requests.NewPort(*pair) for pair in ports]
    try:
        requests.vservice(requests.NewVService(name=name, ip=ip, backends=backends, ports=pairs))
    except InvalidInput as error:
        assert str(error)


@given(st.dictionaries(st.sampled_from(["from", "labels", "destination", "x"]), st.text(max_size=40)))
def test_any_query_raises_only_typed_errors(query: dict[str, str]) -> None:
    try:
        wanted = requests.decode_explain(query)
        find_client(manual_servers(), wanted)
        find_destination(manual_servers(), wanted)
    except (InvalidInput, NotFound) as error:
        assert str(error)


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_pair_is_two_ports_or_invalid(left: str, right: str) -> None:
    try:
        pair = requests.parse_pair(f"{left}:{right}", "--ports", "A:B")
    except InvalidInput:
        return
    assert all(1 <= port <= 65535 for port in pair)


# --- explain's names


def test_who_dials() -> None:
    snapshot = replace(
        manual_node1(),
        apps=(
            app(1, "1.1.1.1", labels(role="a"), name="web"),
            app(2, "1.1.1.1", labels(role="b"), name="web"),
            app(3, "2.2.2.2", name="db"),
        ),
    )

    def client(**query: Any) -> Any:
        return find_client(snapshot, requests.ExplainQuery("1.1.1.1", 80, **query))

    assert client(app="00000002") == snapshot.apps[1]
    assert client(app="DB") == snapshot.apps[2]
    assert client() == Class()
    assert client(labels="role=a") == labels(role="a")
    with pytest.raises(InvalidInput, match="00000001, 00000002"):
        client(app="web")
    with pytest.raises(NotFound, match="no app 'x'"):
        client(app="x")


def test_where_to() -> None:
    names = (("details.default.svc.cluster.local", (IPv4Address("10.96.0.7"),)),)
    vservice = requests.decode_vservice(msgspec.json.encode(EXPOSED))
    snapshot = replace(
        manual_node1(), vservices=(vservice,), names=names, apps=(app(3, "2.2.2.2", name="db"),)
    )
    for host, address in (
        ("9.9.9.9", "9.9.9.9"),
        ("myvsvc", "1.1.1.1"),
        ("DB", "2.2.2.2"),
        ("details.default.svc.cluster.local.", "10.96.0.7"),
    ):
        found = find_destination(snapshot, requests.ExplainQuery(host, 8000))
        assert (found.address, found.port) == (IPv4Address(address), 8000)
    with pytest.raises(NotFound, match="'nobody'"):
        find_destination(snapshot, requests.ExplainQuery("nobody", 80))
