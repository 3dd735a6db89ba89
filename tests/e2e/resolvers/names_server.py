"""The built-in DNS server alone, with names of its own and a name server behind it; `ready` once it serves.

Arguments: port of 127.0.0.1.  It ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from appswitch.agent.dns import DnsServer
from appswitch.agent.dns_names import NameTable
from appswitch.agent.logs import open_log
from appswitch.model import App, Class, Snapshot

WEB = "241.1.2.3"
MANY = tuple(str(IPv4Address("241.7.0.1") + number) for number in range(200))
"""More than 512 bytes, and more than the 1232 that EDNS0 resolvers ask for: TCP is needed."""
MESH = "10.96.0.9"
FOREIGN = "192.0.2.7"


class Foreign(asyncio.DatagramProtocol):
    """Knows foreign.example and nothing else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        reply = query.reply(aa=0)
        if query.q.qname != "foreign.example":
            reply.header.rcode = RCODE.NXDOMAIN
        elif query.q.qtype == QTYPE.A:
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A(FOREIGN)))
        self.transport.sendto(reply.pack(), addr)  # type: ignore[attr-defined]


def snapshot() -> Snapshot:
    apps = [App(1, "uid", Class(), IPv4Address(WEB), "web")]
    apps += [App(number, "uid", Class(), IPv4Address(ip), "many") for number, ip in enumerate(MANY, 2)]
    names = (("reviews.default.svc.cluster.local", (IPv4Address(MESH),)),)
    return Snapshot("node", IPv4Address("10.0.2.15"), apps=tuple(apps), names=names)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    foreign, _ = await loop.create_datagram_endpoint(Foreign, local_addr=("127.0.0.1", 5533))
    servers = [(IPv4Address("127.0.0.1"), 5533)]
    log = open_log(None)
    server = DnsServer(
        "appswitch.local", IPv4Address("241.255.255.53"), log, servers, host=Path("/nonexistent")
    )
    assert await server.start(port) == port
    server.update(NameTable.build(snapshot()))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    await server.close()
    foreign.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
