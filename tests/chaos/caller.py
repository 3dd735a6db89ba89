"""A client that calls without end: `caller.py tcp|asyncio|udp|http ADDRESS PORT`.

Every call makes a new socket, dials, asks, reads the answer and closes.  It prints "up", and after SIGTERM
{"calls": N, "failed": [reason…], "longest": seconds of the longest call, "at": when that began}.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time

PATIENCE = 30.0
"""Seconds a call may take."""
PAUSE = 0.02
BYTES = b"x" * 512

stopping = False
failed: list[str] = []
calls = 0
longest = (0.0, 0.0)


def stop(*_: object) -> None:
    """SIGTERM: after the call in hand."""
    global stopping
    stopping = True


def count(begin: float, error: BaseException | None = None) -> None:
    """One call is over."""
    global calls, longest
    calls += 1
    longest = max(longest, (time.monotonic() - begin, begin))
    if error is not None and len(failed) < 100:
        failed.append(f"{begin:.3f} +{time.monotonic() - begin:.3f}: {error!r}")


def tcp(address: tuple[str, int]) -> None:
    """A line of the server's, then an echo."""
    with socket.create_connection(address, PATIENCE) as sock:
        stream = sock.makefile("rwb")
        assert b"name" in stream.readline(), "no greeting"
        stream.write(BYTES)
        stream.flush()
        assert stream.read(len(BYTES)) == BYTES, "no echo"


def http(address: tuple[str, int]) -> None:
    """A GET that the server closes."""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b" 200 " in answer, answer[:100]


def udp(address: tuple[str, int]) -> None:
    """A datagram there and one back, connected and not in turn."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        if calls % 2:
            sock.connect(address)
            sock.send(BYTES)
            assert BYTES in sock.recv(65536)
        else:
            sock.sendto(BYTES, address)
            data, peer = sock.recvfrom(65536)
            assert BYTES in data and peer == address, peer


async def many(address: tuple[str, int]) -> None:
    """Several at once, in one event loop."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address)
        assert b"name" in await reader.readline(), "no greeting"
        writer.write(BYTES)
        assert await reader.readexactly(len(BYTES)) == BYTES, "no echo"
        writer.close()
        await writer.wait_closed()

    async def loop() -> None:
        while not stopping:
            begin = time.monotonic()
            try:
                await asyncio.wait_for(one(), PATIENCE)
            except (OSError, TimeoutError, EOFError, AssertionError) as error:
                count(begin, error)
            else:
                count(begin)
            await asyncio.sleep(PAUSE * 2)

    await asyncio.gather(loop(), loop())


def main(kind: str, ip: str, port: str) -> None:
    """See above."""
    signal.signal(signal.SIGTERM, stop)
    signal.siginterrupt(signal.SIGTERM, False)  # socket() that has to wait is begun again
    address = (ip, int(port))
    print("up", flush=True)
    if kind == "asyncio":
        asyncio.run(many(address))
    else:
        call = {"tcp": tcp, "http": http, "udp": udp}[kind]
        while not stopping:
            begin = time.monotonic()
            try:
                call(address)
            except (OSError, AssertionError) as error:
                count(begin, error)
            else:
                count(begin)
            time.sleep(PAUSE)
    print(json.dumps({"calls": calls, "failed": failed, "longest": longest[0], "at": longest[1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
