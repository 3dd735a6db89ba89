"""Host names of DNS clusters against a name server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dns_dialogue import Upstream, coded, good
from dnslib import QTYPE, RR, A, DNSRecord

from appswitch.agent.dns_addresses import Found
from appswitch.agent.istio_names import ClusterNames, Resolver
from appswitch.agent.tasks import spawn
from appswitch.errors import InvalidInput
from appswitch.xds.ads import Config
from appswitch.xds.decode import decode_resource
from appswitch.xds.make import dns_cluster
from appswitch.xds.resources import CDS, Cluster

ADDRESS = IPv4Address("192.0.2.1")
PATIENCE = 10.0


def config(*hosts: str, seconds: int = 60) -> Config:
    raw = dns_cluster("a", *(f"{host}:80" for host in hosts), dns_refresh_rate={"seconds": seconds})
    decoded = decode_resource(CDS, raw.value)
    assert isinstance(decoded, Cluster)
    return Config({"a": decoded})


def only(*names: str) -> Callable[[DNSRecord, bool], DNSRecord]:
    """A server that knows these."""
    missing = coded("NXDOMAIN")
    return lambda query, tcp: (good if str(query.q.qname) in names else missing)(query, tcp)


def resolver(upstream: Upstream, folder: Path, search: str = "") -> Resolver:
    (folder / "hosts").write_text("192.0.2.9 printer\n")
    (folder / "resolv.conf").write_text(f"search {search}\n")
    return Resolver((upstream.address,), hosts=folder / "hosts", resolv_conf=folder / "resolv.conf")


def test_a_name_is_looked_for_where_every_program_would(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Upstream(only("www.example.com.", "db.corp.test.")) as upstream:
            resolve = resolver(upstream, tmp_path, "corp.test")
            assert await resolve("www.example.com") == Found(True, (ADDRESS,), 60.0)
            assert await resolve("db") == Found(True, (ADDRESS,), 60.0)
            assert [str(query.q.qname) for query, _ in upstream.asked] == [
                "www.example.com.",
                "db.corp.test.",
            ]
            assert await resolve("printer") == Found(True, (IPv4Address("192.0.2.9"),))
            assert (await resolve("localhost")).addresses == (IPv4Address("127.0.0.1"),)
            with pytest.raises(InvalidInput, match="no such name"):
                await resolve("nobody.test")
            upstream.say = lambda query, _: query.reply()
            with pytest.raises(InvalidInput, match="no IPv4 address"):
                await resolve("nobody.test")
            upstream.say = coded("SERVFAIL")
            with pytest.raises(InvalidInput, match="SERVFAIL"):
                await resolve("www.example.com")
            await resolve.close()

    asyncio.run(scenario())


def test_many_addresses_come_by_tcp(tmp_path: Path) -> None:
    def many(query: DNSRecord, tcp: bool) -> DNSRecord:
        reply: DNSRecord = query.reply()
        if not tcp:
            reply.header.tc = 1
            return reply
        for number in range(200):
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A(f"192.0.2.{number}")))
        return reply

    async def scenario() -> None:
        async with Upstream(many) as upstream:
            assert len((await resolver(upstream, tmp_path)("many.test")).addresses) == 200

    asyncio.run(scenario())


class Bench:
    """A `ClusterNames` with a name server in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Found] = {}
        self.calls: list[str] = []
        self.moved = asyncio.Event()
        self.changes = 0
        self.names = ClusterNames(self._changed, self._resolve, lambda _, high: high)

    async def _resolve(self, name: str) -> Found:
        self.calls.append(name)
        self.moved.set()
        if name not in self.known:
            raise InvalidInput("there is no such name")
        return self.known[name]

    async def _changed(self) -> None:
        self.changes += 1
        self.moved.set()

    def addresses(self) -> dict[str, list[str]]:
        return {look.host: [str(ip) for ip in it.addresses] for look, it in self.names.answers.items()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.moved.clear()
                await self.moved.wait()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    bench = Bench()
    task = spawn("names", bench.names.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_names_are_resolved_refreshed_and_forgotten() -> None:
    async def scenario() -> None:
        async with running() as bench:
            bench.known = {"a.test": Found(True, (ADDRESS,))}
            assert bench.names.complete, "nothing is wanted"
            bench.names.want(config("a.test", "b.test", seconds=1))
            assert not bench.names.complete
            await bench.until(lambda: bench.names.complete and bench.changes > 0)
            assert bench.addresses() == {"a.test": ["192.0.2.1"], "b.test": []}
            bench.known["a.test"] = Found(True, (IPv4Address("192.0.2.2"),))
            await bench.until(lambda: bench.addresses()["a.test"] == ["192.0.2.2"])
            bench.names.want(config("c.test"))
            await bench.until(lambda: "c.test" in bench.addresses())
            assert bench.addresses() == {"c.test": []}

    asyncio.run(scenario())


def test_a_name_that_takes_long_holds_up_no_other() -> None:
    async def scenario() -> None:
        async with running() as bench:
            hang = asyncio.Event()
            fast = bench.names.resolve

            async def slow(name: str) -> Found:
                if name == "slow.test":
                    await hang.wait()
                return await fast(name)

            bench.names.resolve = slow
            bench.known = {name: Found(True, (ADDRESS,)) for name in ("slow.test", "fast.test")}
            bench.names.want(config("slow.test", "fast.test"))
            await bench.until(lambda: bench.addresses() == {"fast.test": ["192.0.2.1"]})
            assert not bench.names.complete
            hang.set()
            await bench.until(lambda: bench.names.complete)

    asyncio.run(scenario())
