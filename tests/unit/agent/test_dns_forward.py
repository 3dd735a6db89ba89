"""Questions passed on: which server, how often, how long, and what is believed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from dns_dialogue import (
    DNS_IP,
    LOOPBACK,
    Events,
    Upstream,
    check,
    coded,
    good,
    nobody,
    question,
    silent,
    tcp,
    udp,
    with_server,
)
from dnslib import QTYPE, RR, A, DNSRecord

from appswitch.agent.dns import DnsServer
from appswitch.agent.logs import Log


def test_forwarding_with_another_id_and_port_each_time() -> None:
    async def main() -> None:
        async with Upstream(good) as upstream:

            async def test(server: DnsServer) -> None:
                for number in range(20):
                    query = question(f"host{number}.example.com")
                    query.header.id = 1
                    assert check(await udp(server, query.pack()), query) == ["192.0.2.1"]
                assert len({query.header.id for query, _ in upstream.asked}) > 15
                assert len({port for _, (_, port) in upstream.asked}) > 1

            await with_server(test, [upstream.address])

    asyncio.run(main())


def test_the_next_server_is_asked_and_then_preferred() -> None:
    async def main() -> None:
        dead = await nobody()
        async with Upstream(silent) as mute, Upstream(coded("REFUSED")) as refuses, Upstream(good) as works:

            async def test(server: DnsServer) -> None:
                for name in ("a.example", "b.example"):
                    query = question(name)
                    assert check(await udp(server, query.pack()), query) == ["192.0.2.1"]
                assert (len(mute.asked), len(refuses.asked), len(works.asked)) == (1, 1, 2)

            await with_server(test, [dead, mute.address, refuses.address, works.address], try_seconds=0.2)

    asyncio.run(main())


@pytest.mark.parametrize("by", ["udp", "tcp"])
def test_servfail_in_time_when_nobody_answers(by: str) -> None:
    async def main() -> None:
        async with Upstream(silent) as mute:

            async def test(server: DnsServer) -> None:
                query = question("a.example")
                before = time.monotonic()
                reply = (
                    await udp(server, query.pack()) if by == "udp" else (await tcp(server, query.pack()))[0]
                )
                assert check(reply, query, "SERVFAIL") == []
                assert time.monotonic() - before < 2

            await with_server(test, [mute.address, await nobody()], try_seconds=0.3, total_seconds=0.5)

    asyncio.run(main())


def test_the_last_error_of_a_server_is_passed_on() -> None:
    async def main() -> None:
        async with Upstream(coded("REFUSED")) as refuses, Upstream(coded("NXDOMAIN")) as none:

            async def refused(server: DnsServer) -> None:
                query = question("a.example")
                check(await udp(server, query.pack()), query, "REFUSED")

            async def missing(server: DnsServer) -> None:
                query = question("a.example")
                check(await udp(server, query.pack()), query, "NXDOMAIN")

            await with_server(refused, [refuses.address])
            await with_server(missing, [none.address])

    asyncio.run(main())


def test_a_truncated_reply_is_fetched_by_tcp_and_cut_to_the_requester() -> None:
    def big(query: DNSRecord, by_tcp: bool) -> DNSRecord:
        reply: DNSRecord = query.reply()
        if not by_tcp:
            reply.header.tc = 1
            return reply
        reply.add_answer(*[RR(query.q.qname, QTYPE.A, rdata=A(f"192.0.2.{number}")) for number in range(100)])
        return reply

    async def main() -> None:
        async with Upstream(big) as upstream:

            async def test(server: DnsServer) -> None:
                small, large = question("a.example"), question("a.example", payload=4096)
                got = DNSRecord.parse(await udp(server, small.pack()))
                assert (got.header.tc, got.rr, got.q.qname) == (1, [], small.q.qname)
                assert len(check(await udp(server, large.pack()), large)) == 100
                before = len(upstream.asked)
                assert len(check((await tcp(server, small.pack()))[0], small)) == 100
                assert len(upstream.asked) == before, "asked by TCP: forwarded by TCP alone"

            await with_server(test, [upstream.address])

    asyncio.run(main())


def test_forged_replies_do_not_count() -> None:
    def forged(query: DNSRecord, _: bool) -> bytes:
        reply = good(query)
        reply.header.id = query.header.id ^ 1
        return bytes(reply.pack())

    async def main() -> None:
        async with Upstream(forged) as liar:

            async def test(server: DnsServer) -> None:
                query = question("a.example")
                check(await udp(server, query.pack()), query, "SERVFAIL")

            await with_server(test, [liar.address], try_seconds=0.2, total_seconds=0.3)

    asyncio.run(main())


def test_forwards_are_bounded_and_equal_ones_are_one() -> None:
    async def main() -> None:
        async with Upstream(silent) as mute:

            async def test(server: DnsServer) -> None:
                same, other = question("a.example"), question("b.example")
                pending = [asyncio.create_task(udp(server, same.pack())) for _ in range(4)]
                async with asyncio.timeout(3):
                    await mute.heard.wait()
                while server._forwarder._waiting < 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                before = time.monotonic()
                check(await udp(server, other.pack()), other, "SERVFAIL")
                assert time.monotonic() - before < 0.3, "one too many is refused at once"
                for reply in await asyncio.gather(*pending):
                    check(reply, same, "SERVFAIL")
                assert len(mute.asked) == 1

            await with_server(test, [mute.address], in_flight=4, try_seconds=0.6, total_seconds=0.6)

    asyncio.run(main())


def test_two_servers_that_forward_to_each_other_end() -> None:
    async def main() -> None:
        first = DnsServer("appswitch.local", DNS_IP, Log(Events()), host=Path("/nonexistent"))
        port = await first.start()

        async def test(second: DnsServer) -> None:
            first._chosen = ((LOOPBACK, second.port),)
            query = question("a.example")
            check(await udp(second, query.pack()), query, "SERVFAIL")

        await with_server(test, [(LOOPBACK, port)], try_seconds=0.3, total_seconds=0.5)
        await first.close()

    asyncio.run(main())
