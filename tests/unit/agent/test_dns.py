"""The DNS server on real sockets, with name servers of the test's own on loopback behind it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSRecord

from appswitch.agent.dns import DnsServer
from appswitch.agent.dns_names import NameTable
from appswitch.agent.logs import Log
from appswitch.agent.resolv_conf import Server
from appswitch.model import App, Class, Snapshot

DNS_IP = IPv4Address("241.255.255.53")
LOOPBACK = IPv4Address("127.0.0.1")
WEB = App(1, "uid-1", Class(), IPv4Address("241.1.2.3"), "web")
NAMES = NameTable.build(Snapshot("n", IPv4Address("10.0.2.15"), apps=(WEB,)))


class Events:
    """A stand-in for structlog's logger."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.seen.append((event, fields))


class Upstream:
    """A name server: `say` makes the reply to a decoded question, None is silence."""

    def __init__(self, say: Callable[[DNSRecord, bool], DNSRecord | bytes | None]) -> None:
        self.say = say
        self.asked: list[tuple[DNSRecord, tuple[str, int]]] = []
        self.heard = asyncio.Event()
        self.by_tcp = 0
        self.address: Server = (LOOPBACK, 0)

    async def __aenter__(self) -> Upstream:
        outer = self

        class Packets(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                query = DNSRecord.parse(data)
                outer.asked.append((query, addr))
                outer.heard.set()
                reply = outer.say(query, False)
                if reply is not None:
                    packed = reply if isinstance(reply, bytes) else reply.pack()
                    self.transport.sendto(packed, addr)  # type: ignore[attr-defined]

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            query = DNSRecord.parse(
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            )
            outer.by_tcp += 1
            reply = outer.say(query, True)
            if reply is not None:
                packed = reply if isinstance(reply, bytes) else reply.pack()
                writer.write(len(packed).to_bytes(2, "big") + packed)
            writer.close()

        loop = asyncio.get_running_loop()
        self.udp, _ = await loop.create_datagram_endpoint(Packets, local_addr=("127.0.0.1", 0))
        port = self.udp.get_extra_info("sockname")[1]
        self.tcp = await asyncio.start_server(connection, "127.0.0.1", port)
        self.address = (LOOPBACK, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.udp.close()
        self.tcp.close()


def good(query: DNSRecord, _: bool = False) -> DNSRecord:
    reply: DNSRecord = query.reply()
    reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A("192.0.2.1")))
    return reply


def coded(code: str) -> Callable[[DNSRecord, bool], DNSRecord]:
    def say(query: DNSRecord, _: bool) -> DNSRecord:
        reply: DNSRecord = query.reply()
        reply.header.rcode = getattr(RCODE, code)
        return reply

    return say


def silent(*_: object) -> None:
    return None


async def nobody() -> Server:
    """An address where nothing listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return (LOOPBACK, free.getsockname()[1])


async def udp(server: DnsServer, packet: bytes, seconds: float = 3.0) -> bytes:
    """One exchange by UDP; TimeoutError if nothing comes."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", server.port))
        client.send(packet)
        return await asyncio.wait_for(loop.sock_recv(client, 65535), seconds)


async def tcp(server: DnsServer, *packets: bytes) -> list[bytes]:
    """Some questions, sent at once over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets))
        async with asyncio.timeout(3):
            return [
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")) for _ in packets
            ]
    finally:
        writer.close()


async def with_server(
    test: Callable[[DnsServer], Awaitable[None]], servers: list[Server], **settings: Any
) -> list[tuple[str, dict[str, Any]]]:
    """`test` with a running server that forwards to `servers`; the events it logged."""
    events = Events()
    settings.setdefault("host", Path("/nonexistent/resolv.conf"))
    server = DnsServer("appswitch.local", DNS_IP, Log(events), servers, **settings)
    await server.start()
    server.update(NAMES)
    try:
        await test(server)
    finally:
        await server.close()
    return events.seen


def question(name: str, qtype: str = "A", payload: int = 0) -> DNSRecord:
    query = DNSRecord.question(name, qtype)
    if payload:
        query.add_ar(EDNS0(udp_len=payload))
    return query


def check(reply: bytes, query: DNSRecord, code: str = "NOERROR") -> list[str]:
    got = DNSRecord.parse(reply)
    assert (got.header.id, RCODE[got.header.rcode]) == (query.header.id, code)
    return [str(rr.rdata) for rr in got.rr]


def test_udp_and_tcp_on_one_port() -> None:
    async def test(server: DnsServer) -> None:
        query, other = question("web"), question("web.appswitch.local", "AAAA")
        assert check(await udp(server, query.pack()), query) == ["241.1.2.3"]
        first, second = await tcp(server, query.pack(), other.pack())
        assert check(first, query) == ["241.1.2.3"] and check(second, other) == []
        server.update(NameTable())
        assert check(await udp(server, query.pack()), query, "NXDOMAIN") == []

    asyncio.run(with_server(test, []))


def test_the_wanted_port_is_taken_if_free() -> None:
    async def test(server: DnsServer) -> None:
        second = DnsServer("appswitch.local", DNS_IP, Log(Events()), host=Path("/nonexistent"))
        assert await second.start(server.port) not in (0, server.port)
        taken = second.port
        await second.close()
        third = DnsServer("appswitch.local", DNS_IP, Log(Events()), host=Path("/nonexistent"))
        assert await third.start(taken) == taken
        await third.close()

    asyncio.run(with_server(test, []))


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


def test_a_host_without_a_resolver_gets_servfail_and_its_own_names() -> None:
    async def main() -> None:
        async def test(server: DnsServer) -> None:
            foreign, own = question("a.example"), question("web")
            assert check(await udp(server, foreign.pack()), foreign, "SERVFAIL") == []
            assert check(await udp(server, own.pack()), own) == ["241.1.2.3"]

        await with_server(test, [await nobody()])

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


def test_it_never_asks_itself(tmp_path: Path) -> None:
    async def main() -> None:
        host = tmp_path / "resolv.conf"
        host.write_text(f"nameserver {DNS_IP}\n")

        async def test(server: DnsServer) -> None:
            for _ in range(3):
                query = question("a.example")
                check(await udp(server, query.pack()), query, "SERVFAIL")

        events = await with_server(test, [], host=host)
        assert events == [("dns.server_refused", {"destination": f"{DNS_IP}:53"})]

        async def own_port(server: DnsServer) -> None:
            server._chosen = ((LOOPBACK, server.port),)
            query = question("a.example")
            check(await udp(server, query.pack()), query, "SERVFAIL")

        assert [name for name, _ in await with_server(own_port, [])] == ["dns.server_refused"]

    asyncio.run(main())


def test_the_hosts_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    async def main() -> None:
        host = tmp_path / "resolv.conf"

        async def test(server: DnsServer) -> None:
            assert [str(address) for address, _ in server._upstreams()] == ["127.0.0.1"]
            host.write_text("nameserver 192.0.2.53\n")
            assert [str(address) for address, _ in server._upstreams()] == ["192.0.2.53"]
            host.unlink()
            assert [str(address) for address, _ in server._upstreams()] == ["127.0.0.1"]

        await with_server(test, [], host=host)

    asyncio.run(main())


def test_malformed_packets_are_one_event_and_it_goes_on() -> None:
    async def main() -> None:
        async def test(server: DnsServer) -> None:
            query = question("web")
            cut = query.pack()[:20]
            check(await udp(server, bytes(cut)), query, "FORMERR")
            for junk in (b"", b"x", b"\xff" * 600, bytes(11)):
                with pytest.raises(TimeoutError):
                    await udp(server, junk, 0.05)
            with pytest.raises(asyncio.IncompleteReadError):
                await tcp(server, b"")
            assert check(await udp(server, query.pack()), query) == ["241.1.2.3"]
            assert check((await tcp(server, query.pack()))[0], query) == ["241.1.2.3"]

        events = await with_server(test, [])
        assert [(name, fields["count"]) for name, fields in events] == [("dns.malformed", 1)]
        assert set(events[0][1]) == {"error", "source", "count"}

    asyncio.run(main())


def test_a_tcp_client_that_goes_away_or_lies_about_the_length_harms_nobody() -> None:
    async def main() -> None:
        async def test(server: DnsServer) -> None:
            for start in (b"", b"\0", b"\xff\xffabc"):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(start)
                await writer.drain()
                writer.close()
            query = question("web")
            assert check((await tcp(server, query.pack()))[0], query) == ["241.1.2.3"]

        assert await with_server(test, []) == []

    asyncio.run(main())


def test_closing_with_questions_in_flight() -> None:
    async def main() -> None:
        async with Upstream(silent) as mute:

            async def test(server: DnsServer) -> None:
                with pytest.raises(TimeoutError):
                    await udp(server, question("a.example").pack(), 0.1)
                assert mute.asked

            before = time.monotonic()
            await with_server(test, [mute.address])
            assert time.monotonic() - before < 2
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("dns-")] == []

    asyncio.run(main())
