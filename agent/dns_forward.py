"""Asks other name servers for names that are not ours, and always comes back with a reply in time.

Every question goes out with a random id from a socket (hence port) of its own, and only a reply from that
server with that id and question counts (RFC 5452).  Equal questions in flight share one: a requester that
asks again costs nothing, and servers that forward to each other in a circle stop at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from appswitch.agent.dns_answer import servfail
from appswitch.agent.dns_message import Forward, Rcode, fitted, is_reply, is_truncated, reply_rcode
from appswitch.agent.resolv_conf import ResolvConf, Server, parse_resolv_conf
from appswitch.agent.tasks import spawn, stop

TRY_SECONDS = 1.2
"""For one server to reply: the next is tried well before any resolver's patience ends (c-ares: 2 s)."""
TOTAL_SECONDS = 4.0
"""For one question: below the 5 s of glibc, musl and Go, so that they get SERVFAIL and not silence."""
IN_FLIGHT = 256
"""Questions that may wait at once; one more gets SERVFAIL: sockets and memory stay bounded."""

_NEXT_SERVER = frozenset({Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED})
"""Replies that say something of the server and nothing of the name (as glibc treats them)."""


class HostServers:
    """The host's resolv.conf, read again when the file has changed."""

    def __init__(self, path: Path = Path("/etc/resolv.conf")) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._conf = ResolvConf()

    def __call__(self) -> tuple[Server, ...]:
        """The servers now."""
        return self.conf().servers

    def conf(self) -> ResolvConf:
        """All of it; a file that is missing or unreadable says 127.0.0.1, as to every resolver."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                text = self._path.read_text(encoding="utf-8", errors="replace")
                self._stamp, self._conf = stamp, parse_resolv_conf(text)
        except OSError:
            self._stamp, self._conf = None, parse_resolv_conf("")
        return self._conf


class Forwarder:
    """Questions to other servers, bounded in number and time."""

    def __init__(
        self,
        servers: Callable[[], Sequence[Server]],
        *,
        try_seconds: float = TRY_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._servers = servers
        self._try_seconds = try_seconds
        self._total_seconds = total_seconds
        self._in_flight = in_flight
        self._preferred: Server | None = None
        self._waiting = 0
        self._flights: dict[tuple[bool, int, bytes], asyncio.Task[bytes]] = {}
        self.failed = 0
        """Questions that ended in a SERVFAIL of ours."""

    async def ask(self, asked: Forward, *, tcp: bool) -> bytes:
        """The reply to send to the requester; SERVFAIL when no server gave one.  Raises nothing."""
        if self._waiting >= self._in_flight:
            self.failed += 1
            return servfail(asked)
        key = (tcp, asked.limit, asked.query[2:])
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = spawn("dns-forward", self._ask(asked, tcp))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        self._waiting += 1
        try:
            reply = await asyncio.shield(flight)
        finally:
            self._waiting -= 1
        return asked.query[:2] + reply[2:]

    async def close(self) -> None:
        """Give up whatever is in flight."""
        await stop(list(self._flights.values()))

    async def _ask(self, asked: Forward, tcp: bool) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._total_seconds
        # The one that replied last goes first: a dead first server then costs one question, not each.
        order = sorted(self._servers(), key=lambda server: server != self._preferred)
        second_best: bytes | None = None
        for server in (*order, *order):
            seconds = min(self._try_seconds, deadline - loop.time())
            if seconds <= 0:
                break
            try:
                async with asyncio.timeout(seconds):
                    reply = await self._exchange(server, asked, tcp)
            except (OSError, EOFError, TimeoutError):
                continue
            if reply_rcode(reply) in _NEXT_SERVER:
                second_best = second_best or reply
                continue
            self._preferred = server
            return fitted(asked, reply)
        if second_best is not None:
            return fitted(asked, second_best)
        self.failed += 1
        return servfail(asked)

    async def _exchange(self, server: Server, asked: Forward, tcp: bool) -> bytes:
        """One server's reply; OSError or EOFError if it gives none."""
        if tcp:
            return await _exchange_tcp(server, asked)
        reply = await _exchange_udp(server, asked)
        if is_truncated(reply):
            try:
                async with asyncio.timeout(self._try_seconds / 2):
                    return await _exchange_tcp(server, asked)
            except (OSError, EOFError, TimeoutError):
                pass  # the requester gets the truncated one and may try TCP itself
        return reply


class _Question(asyncio.DatagramProtocol):
    """One question by UDP: whatever else arrives is ignored."""

    def __init__(self, asked: Forward, ident: int) -> None:
        self._asked = asked
        self._ident = ident
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        if not self.reply.done() and is_reply(self._asked, data, self._ident):
            self.reply.set_result(data)

    def error_received(self, error: Exception) -> None:
        """ICMP says that nobody is there: no need to wait."""
        if not self.reply.done():
            self.reply.set_exception(error)


async def _exchange_udp(server: Server, asked: Forward) -> bytes:
    ident = secrets.randbelow(65536)
    address = (str(server[0]), server[1])
    loop = asyncio.get_running_loop()
    transport, question = await loop.create_datagram_endpoint(
        lambda: _Question(asked, ident), remote_addr=address
    )
    try:
        transport.sendto(ident.to_bytes(2, "big") + asked.query[2:])
        return await question.reply
    finally:
        transport.close()


async def _exchange_tcp(server: Server, asked: Forward) -> bytes:
    ident = secrets.randbelow(65536)
    reader, writer = await asyncio.open_connection(str(server[0]), server[1])
    try:
        writer.write(len(asked.query).to_bytes(2, "big") + ident.to_bytes(2, "big") + asked.query[2:])
        await writer.drain()
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not is_reply(asked, reply, ident):
        raise EOFError("a reply to another question")
    return reply
