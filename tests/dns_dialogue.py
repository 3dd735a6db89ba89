"""Conversations with the DNS server on real sockets, and name servers of the test's own behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

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
