"""A name server of the outside world, for names that are not ours: `foreign_server.py PORT`, on 127.0.0.1."""

from __future__ import annotations

import asyncio
import sys

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

ADDRESS = "192.0.2.7"


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
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A(ADDRESS)))
        self.transport.sendto(reply.pack(), addr)  # type: ignore[attr-defined]


async def main(port: int) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(Foreign, local_addr=("127.0.0.1", port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
