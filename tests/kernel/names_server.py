"""The built-in DNS server alone, with names of its own and a name server behind it; `ready` once it serves.

Arguments: port of 127.0.0.1.  It ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import IPv4Address
from pathlib import Path

from e2e.resolvers.foreign_server import ADDRESS, Foreign

from appswitch.agent.dns import DnsServer
from appswitch.agent.dns_names import NameTable
from appswitch.agent.logs import open_log
from appswitch.model import App, Class, Snapshot

WEB = "241.1.2.3"
MANY = tuple(str(IPv4Address("241.7.0.1") + number) for number in range(200))
"""More than 512 bytes, and more than the 1232 that EDNS0 resolvers ask for: TCP is needed."""
MESH = "10.96.0.9"
FOREIGN = ADDRESS


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
