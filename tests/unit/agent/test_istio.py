"""The Istio agent against a replayed Istiod: tables handed over, and what is logged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dns_dialogue import Upstream, good, silent
from dnslib import DNSRecord

from appswitch.agent import istio, resource_origin
from appswitch.agent import istio_wire as wire
from appswitch.agent.istio import IstioAgent, IstioTable
from appswitch.agent.istio_options import IstioOptions, decode, encode, metadata, node_id, servers
from appswitch.agent.logs import Log
from appswitch.agent.settings import IstioSettings
from appswitch.agent.tasks import spawn
from appswitch.errors import InvalidInput, UsageError
from appswitch.xds.recording import Recording, Step, load
from appswitch.xds.replay import ReplayServer
from appswitch.xds.resources import EDS, Unsupported

BOOKINFO = Path(__file__).resolve().parents[3] / "istio-samples" / "bookinfo" / "recording"
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "istiod"
NODE = "sidecar~10.244.9.1~client-1.default~default.svc.cluster.local"


class Logger:
    """structlog's stand-in: remembers (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.moved = asyncio.Event()

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))
        self.moved.set()

    warning = error = debug = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


class Tables:
    """Remembers what was applied, and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[IstioTable] = []
        self.unsupported: list[tuple[Unsupported, ...]] = []
        self._moved = asyncio.Event()

    async def apply(self, table: IstioTable) -> None:
        self.all.append(table)
        self._moved.set()

    async def first(self) -> IstioTable:
        async with asyncio.timeout(10):
            while not self.all:
                self._moved.clear()
                await self._moved.wait()
        return self.all[0]


@contextlib.asynccontextmanager
async def running(recording: Recording) -> AsyncIterator[tuple[ReplayServer, IstioAgent, Tables, Logger]]:
    server, tables, logger = ReplayServer(recording), Tables(), Logger()
    port = await server.start()
    agent = IstioAgent(IstioOptions(f"127.0.0.1:{port}", NODE), tables.apply, Log(logger))
    agent.report = tables.unsupported.append
    task = spawn("istio", agent.run())
    try:
        yield server, agent, tables, logger
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await server.stop()


def reviews(table: IstioTable) -> dict[str, int]:
    row = next(vservice for vservice in table.vservices if vservice.name.startswith("reviews."))
    return {str(backend.address): backend.weight for backend in row.backends}


def test_the_first_table_is_whole_and_each_change_is_applied_once() -> None:
    async def scenario() -> None:
        async with running(load(BOOKINFO)) as (server, agent, tables, logger):
            await server.wait_for_client()
            assert len(tables.all) == 1  # not one for each of the five responses
            assert len(tables.all[0].vservices) == 6
            assert reviews(tables.all[0]) == {"10.244.1.31": 80, "10.244.1.32": 20}
            assert dict(tables.all[0].names)["ratings.default.svc.cluster.local"] == (
                IPv4Address("10.96.1.4"),
            )
            assert agent.connected_now
            page = agent.answer(wire.PageWanted("clusters"), time.monotonic())
            assert len(msgspec.json.decode(b"[" + page.data + b"]")) == 15
            asked = wire.OriginWanted(IPv4Address("10.96.1.3"), 9080)
            origin = resource_origin.decode(agent.answer(asked, time.monotonic()).data)
            assert origin and [source.weight for source in origin.sources if source.type == "cds"] == [80, 20]
            await server.advance()
            await server.wait_for_client()
            assert [reviews(table) for table in tables.all[1:]] == [{"10.244.1.33": 1}]
            assert [fields["count"] for fields in logger.of("istio.applied")] == [6, 6]
            assert logger.of("istio.applied")[1]["rows"] == 1
            # said once, for as long as it stays the same
            assert tables.unsupported == [agent.table.unsupported]
            assert len(logger.of("istio.unsupported")) == 1
            assert logger.of("istio.unsupported")[0]["count"] == sum(agent.table.counts().values())
            assert "cluster.lb_policy 11" in logger.of("istio.unsupported")[0]["text"]

    asyncio.run(scenario())


def test_an_outage_leaves_the_last_table() -> None:
    async def scenario() -> None:
        async with running(load(BOOKINFO)) as (server, agent, tables, logger):
            await server.wait_for_client()
            port = int(agent.options.target.rpartition(":")[2])
            await server.stop()
            async with asyncio.timeout(10):
                while agent.connected_now:
                    logger.moved.clear()
                    await logger.moved.wait()
            assert len(logger.of("istio.disconnected")) >= 1
            await server.start(port)
            await server.wait_for_client()
            assert agent.connected_now
            assert len(tables.all) == 1

    asyncio.run(scenario())


def test_an_incomplete_first_push_is_applied_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio, "HOLD", 0.2)
    whole = load(BOOKINFO)
    without = tuple(m for m in whole.steps[0].messages if m.response.type_url != EDS)

    async def scenario() -> None:
        recording = Recording("no endpoints", (Step("start", False, without),))
        async with running(recording) as (_, _, tables, _):
            assert (await tables.first()).vservices == ()
            assert len((await tables.first()).names) == 6

    asyncio.run(scenario())


def test_node_ids() -> None:
    plain = IstioOptions("istiod:15010", node_ip="10.0.0.5", node_name="Node_1.example")
    assert node_id(plain, {}) == "sidecar~10.0.0.5~node-1-example.default~default.svc.cluster.local"
    pod = {"POD_NAME": "ax-x7", "POD_NAMESPACE": "mesh", "INSTANCE_IP": "10.9.0.1"}
    assert node_id(plain, pod) == "sidecar~10.9.0.1~ax-x7.mesh~mesh.svc.cluster.local"
    told = IstioOptions("istiod:15010", namespace="shop", metadata=(("SERVICE_ACCOUNT", "web"),))
    assert node_id(told, pod) == "sidecar~10.9.0.1~ax-x7.shop~shop.svc.cluster.local"
    assert node_id(IstioOptions("istiod:15010", NODE), pod) == NODE
    environ = {
        "SERVICE_ACCOUNT": "ax",
        "ISTIO_META_NETWORK": "n1",
        "ISTIO_META_": "x",
        "ISTIO_META_LABELS": "a=b",
        "OTHER": "y",
    }
    assert metadata(told, environ) == {"SERVICE_ACCOUNT": "web", "NETWORK": "n1"}
    assert decode(encode(told)) == told
    with pytest.raises(InvalidInput, match="options of the Istio agent"):
        decode("{")
    with pytest.raises(UsageError, match="node id 'x'"):
        IstioAgent(IstioOptions("127.0.0.1:1", "x"), Tables().apply, Log(Logger()))


@contextlib.asynccontextmanager
async def kitchen(upstream: Upstream) -> AsyncIterator[Tables]:
    """An agent of a mesh with a service behind a host name, which asks this name server."""
    server, tables = ReplayServer(load(FIXTURES / "kitchen")), Tables()
    target, (address, port) = f"127.0.0.1:{await server.start()}", upstream.address
    options = IstioOptions(target, NODE, mode="sotw", dns_servers=(f"{address}:{port}",))
    task = spawn("istio", IstioAgent(options, tables.apply, Log(Logger())).run())
    try:
        await server.wait_for_client()
        async with asyncio.timeout(10):
            await upstream.heard.wait()
        yield tables
    finally:
        task.cancel()
        await asyncio.wait([task])
        await server.stop()


def partner(table: IstioTable) -> list[str]:
    """What is behind the host name."""
    rows = (each for each in table.vservices if each.name == "api.partner.test:443")
    return [f"{backend.address}:{backend.port}" for row in rows for backend in row.backends]


def test_host_names_are_resolved_before_the_first_table() -> None:
    """Rows of an earlier daemon would else go for as long as the answer takes."""
    answer = asyncio.Event()

    def say(query: DNSRecord, tcp: bool) -> DNSRecord | None:
        return good(query, tcp) if answer.is_set() else None

    async def scenario() -> None:
        async with Upstream(say) as upstream, kitchen(upstream) as tables:
            assert tables.all == []
            answer.set()
            table = await tables.first()
            assert partner(table) == ["192.0.2.1:443"]
            assert not [each for each in table.unsupported if each.field == "endpoint.address.name"]

    asyncio.run(scenario())


def test_a_name_server_that_is_down_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio, "HOLD_NAMES", 0.2)

    async def scenario() -> None:
        async with Upstream(silent) as upstream, kitchen(upstream) as tables:
            table = await tables.first()
            assert partner(table) == [] and len(table.vservices) == 5

    asyncio.run(scenario())


def test_name_servers_are_those_of_the_daemon() -> None:
    settings = IstioSettings(target="istiod:15010")
    chosen = ((IPv4Address("10.0.0.53"), 5353),)
    options = settings.options(IPv4Address("10.0.0.1"), "host0", chosen)
    assert servers(decode(encode(options))) == chosen
    assert servers(settings.options(IPv4Address("10.0.0.1"), "host0")) == ()


def test_name_servers_that_are_none() -> None:
    with pytest.raises(UsageError, match="name servers x:1"):
        servers(IstioOptions("a:1", dns_servers=("x:1",)))
