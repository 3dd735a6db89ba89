"""The document is valid, names every endpoint, and every answer of the server fits it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import msgspec
import openapi_spec_validator
from unit.agent.rest_state import MemoryState, app, labels, manual_node1, manual_servers, serve
from unit.agent.test_istio_inventory import rows
from worlds import POLICIES

from appswitch.agent import resources as view
from appswitch.agent.openapi import ENDPOINTS, document

DOCUMENT = document("0.1.0")
CREATE = {
    "name": "myvsvc",
    "ip": "1.1.1.1",
    "backends": ["10.0.2.15"],
    "ports": [{"port": 80, "target": 8000}],
}


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` everywhere: an answer may hold nothing unnamed."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def check(method: str, path: str, status: int, body: Any) -> None:
    """Raises if the document does not describe this answer."""
    for template, operations in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in operations:
            response = operations[method.lower()]["responses"][str(status)]
            break
    else:
        raise AssertionError(f"{method} {path} is not in the document")
    if "content" not in response:
        assert body is None
        return
    schema = response["content"]["application/json"]["schema"]
    whole = schema | {"components": closed(DOCUMENT["components"])}
    jsonschema.Draft202012Validator(whole).validate(body)


def test_the_document_is_openapi_31() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_required_fields_of_a_request() -> None:
    schema = DOCUMENT["components"]["schemas"]["NewVService"]
    assert schema["required"] == ["name", "backends"]
    assert schema["additionalProperties"] is False


def istio_pages() -> dict[str, list[bytes]]:
    """What the Istio agent answers after bookinfo's first push."""
    kinds = ("clusters", "endpoints", "listeners", "routes", "xds")
    return {kind: [msgspec.json.encode(rows(kind))[1:-1]] for kind in kinds}


def test_every_answer_fits(tmp_path: Path) -> None:
    snapshot = replace(
        manual_servers(),
        apps=(*manual_servers().apps, app(7, "2.2.2.2", labels(**{"a\x1b": "ü"}), name="web", pid=4711)),
        policies=POLICIES[:2],
    )
    relays = (view.ProxyView(id=1, proto="tcp", listener="10.0.0.10:6660", dialers=["0.0.0.0:0"]),)
    state = MemoryState(snapshot, relays=relays, pages=istio_pages())
    seen: set[tuple[str, str, int]] = set()

    async def ask(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> None:
        async with session.request(method, "http://localhost" + path, **more) as answer:
            body = await answer.json() if answer.content_type == "application/json" else None
            check(method, path.partition("?")[0], answer.status, body)
            seen.add((method, path, answer.status))

    async def dialogue() -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(tmp_path / "api.sock"))
        ) as session:
            json_type = {"Content-Type": "application/json"}
            await ask(session, "POST", "/v1/vservices", json=CREATE)
            await ask(session, "POST", "/v1/vservices", json=CREATE)
            await ask(session, "POST", "/v1/vservices", json={})
            await ask(session, "POST", "/v1/vservices", data=b"name=a")
            await ask(session, "POST", "/v1/vservices", data=b" " * 70_000, headers=json_type)
            await ask(session, "GET", "/v1/vservices/myvsvc")
            for endpoint in ENDPOINTS:
                if endpoint.method == "GET" and not endpoint.parameters:
                    await ask(session, "GET", endpoint.path)
                    await ask(session, "GET", endpoint.path + "?x=1")
            for client in ("from=f83e8600", "labels=role=test", "from=nobody"):
                await ask(session, "GET", f"/v1/explain?{client}&destination=1.1.1.1:80")
            for destination in ("127.0.0.1", "9.9.9.9", "myvsvc", "nobody", "1.1.1.1:x"):
                await ask(session, "GET", f"/v1/explain?destination={destination}")
            for query in ("", "?seconds=0.01", "?seconds=61", "?seconds=x", "?x=1"):
                await ask(session, "GET", f"/v1/bpf{query}")
            await ask(session, "DELETE", "/v1/vservices/myvsvc")
            await ask(session, "DELETE", "/v1/vservices/myvsvc")
            await ask(session, "POST", "/v1/apps", json={"target": "4711", "name": "myvsvc"})
            await ask(session, "POST", "/v1/apps", json={"target": ""})
            await ask(session, "DELETE", "/v1/apps/myvsvc")
            state.fault = RuntimeError("fault")
            await ask(session, "POST", "/v1/vservices", json=CREATE)

    assert serve(state, tmp_path, 0, dialogue) == ["POST /v1/vservices"]
    posts = {status for method, path, status in seen if method == "POST"}
    assert posts == {201, 400, 409, 413, 415, 500}
    succeeded = {(method, path.partition("?")[0]) for method, path, status in seen if status < 300}
    for endpoint in ENDPOINTS:
        assert (endpoint.method, endpoint.path.replace("{name}", "myvsvc")) in succeeded


def test_the_served_document_is_this_one(tmp_path: Path) -> None:
    async def dialogue() -> None:
        connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/v1/openapi.json") as answer,
        ):
            assert await answer.json() == DOCUMENT

    serve(MemoryState(manual_node1()), tmp_path, 0, dialogue)
