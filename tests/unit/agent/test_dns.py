"""The DNS server on real sockets: both transports, bad packets, its own address, its end."""

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
    nobody,
    question,
    silent,
    tcp,
    udp,
    with_server,
)

from appswitch.agent.dns import DnsServer
from appswitch.agent.dns_names import NameTable
from appswitch.agent.logs import Log


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


def test_a_host_without_a_resolver_gets_servfail_and_its_own_names() -> None:
    async def main() -> None:
        async def test(server: DnsServer) -> None:
            foreign, own = question("a.example"), question("web")
            assert check(await udp(server, foreign.pack()), foreign, "SERVFAIL") == []
            assert check(await udp(server, own.pack()), own) == ["241.1.2.3"]

        await with_server(test, [await nobody()])

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
