"""REST over real sockets: what is answered, and that no request ends the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from unit.agent.rest_state import (
    EXPOSED,
    MemoryState,
    Talk,
    free_port,
    manual_servers,
    serve,
)

from appswitch.agent import api, requests
from appswitch.agent.resource_origin import OriginView, SourceView
from appswitch.errors import AppSwitchError, Denied, Exhausted, Unavailable, Unsupported


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


def test_istio_s_configuration_comes_page_by_page(tmp_path: Path) -> None:
    away = Unavailable("the Istio agent's process is away")
    pages = {
        "clusters": (b"1,2", b"", b"3"),
        "endpoints": (b"", b"4"),
        "listeners": (away,),
        "routes": (b"5", away),
    }
    state, talk = MemoryState(manual_servers(), pages=pages), Talk(tmp_path)

    async def dialogue() -> None:
        assert await talk("GET", "/v1/clusters") == (200, [1, 2, 3])
        assert await talk("HEAD", "/v1/clusters") == (200, None)
        assert await talk("GET", "/v1/endpoints") == (200, [4])
        assert await talk("GET", "/v1/xds") == (200, [])
        status, error = await talk("GET", "/v1/listeners")
        assert (status, error["error"], error["message"]) == (503, "unavailable", str(away))
        with pytest.raises(aiohttp.ClientPayloadError):  # half of an answer does not look whole
            await talk("GET", "/v1/routes")
        assert (await talk("GET", "/v1/clusters?x=1"))[0] == 400

    assert serve(state, tmp_path, 0, dialogue) == []


def test_explain_asks_where_istio_s_decisions_come_from(tmp_path: Path) -> None:
    mine = requests.decode_vservice(msgspec.json.encode(EXPOSED))
    theirs = replace(mine, name="web:80", addresses=(IPv4Address("10.96.0.1"),), origin="istio")
    origin = OriginView(sources=[SourceView(type="lds", name="10.96.0.1_8000")], endpoints=[])
    state, talk = MemoryState(replace(manual_servers(), vservices=(mine, theirs))), Talk(tmp_path)

    async def explained(destination: str) -> Any:
        status, answer = await talk("GET", f"/v1/explain?destination={destination}")
        assert status == 200
        return answer

    async def dialogue() -> None:
        assert (await explained("1.1.1.1:8000"))["origin"] is None  # and nobody is asked
        state.origins["10.96.0.1:8000"] = origin
        answer = await explained("10.96.0.1:8000")
        assert answer["origin"]["sources"][0]["name"] == "10.96.0.1_8000"
        assert answer["lines"][-1].startswith("LDS     10.96.0.1_8000")
        state.origins["10.96.0.1:8000"] = Unavailable("it is away")
        answer = await explained("10.96.0.1:8000")
        assert (answer["verdict"], answer["origin_unknown"]) == ("balance", "it is away")
        state.origins["10.96.0.1:8000"] = None
        answer = await explained("10.96.0.1:8000")
        assert answer["lines"][-1] == "origin: unknown (the Istio agent has no 10.96.0.1:8000 now)"

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


def test_a_source_ip_must_be_this_nodes(tmp_path: Path) -> None:
    talk = Talk(tmp_path)

    async def dialogue() -> None:
        status, error = await talk("POST", "/v1/vservices", json={**EXPOSED, "source_ip": "10.9.9.9"})
        assert (status, error["message"]) == (400, "source-ip 10.9.9.9 is not an address of this node")
        assert (await talk("POST", "/v1/vservices", json={**EXPOSED, "source_ip": "10.0.2.15"}))[0] == 201

    assert serve(MemoryState(manual_servers()), tmp_path, 0, dialogue) == []
