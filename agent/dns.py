"""The built-in DNS server: UDP and TCP on one port of 127.0.0.1 that the kernel chose.

Apps never see that port: their resolv.conf names a virtual address whose port 53 the tables send here, so
that the host's port 53 need not be free.  What to say is decided in `dns_answer.py`; other servers are
asked by `dns_forward.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from appswitch.agent.dns_answer import Answered, answer
from appswitch.agent.dns_forward import IN_FLIGHT, TOTAL_SECONDS, TRY_SECONDS, Forwarder, HostServers
from appswitch.agent.dns_message import Forward
from appswitch.agent.dns_names import NameTable
from appswitch.agent.logs import Event, Log
from appswitch.agent.resolv_conf import Server
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import InvalidInput, Unavailable

LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 128
"""TCP connections at once; one more is closed, and its resolver asks again."""
IDLE_SECONDS = 10.0
"""A TCP connection without a whole question for so long is closed (RFC 7766 6.2.3)."""
QUIET_SECONDS = 10.0
"""Between two log events about malformed packets; the next one tells how many there were."""


class DnsServer:
    """Answers apps' questions from the last `update`; `start` and `close` once each."""

    def __init__(
        self,
        domain: str,
        dns_ip: IPv4Address,
        log: Log,
        servers: Sequence[Server] = (),
        *,
        host: Path = Path("/etc/resolv.conf"),
        try_seconds: float = TRY_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        """`servers` are asked for names that are not ours; none: those of `host`, a resolv.conf."""
        self._domain = domain
        self._dns_ip = dns_ip
        self._log = log
        self._chosen = tuple(servers)
        self._host = HostServers(host)
        self._forwarder = Forwarder(
            self._upstreams, try_seconds=try_seconds, total_seconds=total_seconds, in_flight=in_flight
        )
        self._names = NameTable()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: set[Server] = set()
        self._udp_closed = asyncio.Event()
        self._quiet_until = 0.0
        self._malformed = 0
        self.port = 0
        """0 before `start`."""

    async def start(self, port: int = 0) -> int:
        """Listen and return the port; `port` is taken if it is free (an earlier daemon's).

        Raises Unavailable if no port serves for both UDP and TCP.
        """
        tcp, udp, self.port = _bind(port)
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Packets(self, self._udp_closed), sock=udp)
        self._tcp = await asyncio.start_server(self._connection, sock=tcp, backlog=MAX_CONNECTIONS)
        return self.port

    def update(self, names: NameTable) -> None:
        """Answer from `names` from now on."""
        self._names = names

    async def close(self) -> None:
        """Stop listening and give up what is in flight; then the port is free."""
        if self._udp is not None:
            self._udp.close()
            await self._udp_closed.wait()  # asyncio closes the socket in a later turn of the loop
        if self._tcp is not None:
            self._tcp.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await stop(list(self._tasks))
        await self._forwarder.close()

    def packet(self, query: bytes, source: tuple[str, int]) -> None:
        """Answer one UDP packet."""
        said = self._answer(query, source, tcp=False)
        if isinstance(said, bytes):
            self._send(said, source)
        elif said is not None:
            task = spawn("dns-udp", self._forward_packet(said, source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward_packet(self, asked: Forward, source: tuple[str, int]) -> None:
        self._send(await self._forwarder.ask(asked, tcp=False), source)

    def _send(self, reply: bytes, source: tuple[str, int]) -> None:
        if self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(reply, source)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One requester's TCP connection: one question after the other (RFC 7766)."""
        if len(self._writers) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._writers.add(writer)
        source = writer.get_extra_info("peername")
        try:
            while (said := await self._next_question(reader, source)) is not None:
                reply = said if isinstance(said, bytes) else await self._forwarder.ask(said, tcp=True)
                writer.write(len(reply).to_bytes(2, "big") + reply)
                async with asyncio.timeout(IDLE_SECONDS):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # it went away, or says nothing more
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _next_question(
        self, reader: asyncio.StreamReader, source: tuple[str, int]
    ) -> bytes | Forward | None:
        async with asyncio.timeout(IDLE_SECONDS):
            length = int.from_bytes(await reader.readexactly(2), "big")
            query = await reader.readexactly(length)
        return self._answer(query, source, tcp=True)

    def _answer(self, query: bytes, source: tuple[str, int], *, tcp: bool) -> bytes | Forward | None:
        """The reply, whom to ask for it, or None where none may be sent."""
        try:
            said = answer(query, self._names, self._domain, tcp=tcp)
        except InvalidInput as fault:
            self._note_malformed(str(fault), source)
            return None
        if isinstance(said, Answered):
            if said.fault:
                self._note_malformed(said.fault, source)
            return said.message
        return said

    def _note_malformed(self, fault: str, source: tuple[str, int]) -> None:
        self._malformed += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            where = f"{source[0]}:{source[1]}"
            self._log(Event.DNS_MALFORMED, error=fault, source=where, count=self._malformed)
            self._malformed = 0

    def _upstreams(self) -> list[Server]:
        """The servers to ask, without ourselves: asking ourselves would never end."""
        servers = self._chosen or self._host()
        usable = [server for server in servers if not self._is_self(server)]
        for server in set(servers).difference(usable, self._refused):
            self._refused.add(server)
            self._log(Event.DNS_SERVER_REFUSED, destination=f"{server[0]}:{server[1]}")
        return usable

    def _is_self(self, server: Server) -> bool:
        address, port = server
        if address == self._dns_ip:
            return port == 53
        return port == self.port and str(address) in (LOOPBACK, "0.0.0.0", "::", "::ffff:127.0.0.1")


class _Packets(asyncio.DatagramProtocol):
    """The UDP socket's ear."""

    def __init__(self, server: DnsServer, closed: asyncio.Event) -> None:
        self._server = server
        self._closed = closed

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.packet(data, addr)

    def connection_lost(self, _: Exception | None) -> None:
        self._closed.set()


def _bind(port: int) -> tuple[socket.socket, socket.socket, int]:
    """A TCP and a UDP socket on one port of 127.0.0.1: `port` if both are free there, else the kernel's."""
    error: OSError | None = None
    for wanted in (port, *[0] * 32):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((LOOPBACK, wanted))
            chosen: int = tcp.getsockname()[1]
            udp.bind((LOOPBACK, chosen))
        except OSError as taken:
            error = taken
            tcp.close()
            udp.close()
            continue
        tcp.setblocking(False)
        udp.setblocking(False)
        return tcp, udp, chosen
    raise Unavailable(f"the DNS server finds no port of {LOOPBACK} free for both UDP and TCP: {error}")
