"""A client: dials, reads one line, prints what happened as JSON.

`dial.py one ADDRESS PORT` prints {line, peername, sockname} or {errno}.
`dial.py each ADDRESS PORT…` does so for one port after the other, a line each.
`dial.py many ADDRESS PORT COUNT TASKS` dials COUNT times in each of TASKS coroutines and prints
{names: {NAME: how often}, errors: {errno: how often}}.
`dial.py hold ADDRESS PORT` holds one connection; each line of its standard input is echoed through it.
`dial.py loop ADDRESS PORT` dials for ever and prints a line each time: `ok NAME` or `errno N`.
"""

import asyncio
import errno
import json
import socket
import sys
import time
from collections import Counter


def one(address: str, port: int) -> None:
    """A single blocking connection."""
    try:
        with socket.create_connection((address, port), timeout=10) as sock:
            names = {"peername": sock.getpeername(), "sockname": sock.getsockname()}
            print(json.dumps({**names, **json.loads(sock.makefile().readline())}))
    except OSError as error:
        print(json.dumps({"errno": errno.errorcode.get(error.errno or 0, str(error))}))


async def many(address: str, port: int, number: int, tasks: int) -> None:
    """Many connections, each for a line."""
    names: Counter[str] = Counter()
    errors: Counter[str] = Counter()

    async def client() -> None:
        for _ in range(number):
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 30)
                line = await asyncio.wait_for(reader.readline(), 30)
                names[json.loads(line)["name"]] += 1
                writer.close()
                await writer.wait_closed()
            except (TimeoutError, OSError, ValueError) as error:
                errors[repr(error)] += 1

    await asyncio.gather(*(client() for _ in range(tasks)))
    print(json.dumps({"names": names, "errors": errors}))


def hold(address: str, port: int) -> None:
    """One connection that lives as long as standard input does."""
    with socket.create_connection((address, port), timeout=10) as sock:
        stream = sock.makefile("rw")
        print(stream.readline(), end="", flush=True)
        for line in sys.stdin:
            stream.write(line)
            stream.flush()
            print(stream.readline(), end="", flush=True)


def loop(address: str, port: int) -> None:
    """Dials until it is killed, a hundred times a second."""
    while True:
        try:
            with socket.create_connection((address, port), timeout=10) as sock:
                print("ok", json.loads(sock.makefile().readline())["name"], flush=True)
        except OSError as error:
            print("errno", error.errno, flush=True)
        except ValueError:  # the server was killed before it wrote its line
            print("cut", flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    what, host, service, *rest = sys.argv[1:]
    if what == "many":
        asyncio.run(many(host, int(service), int(rest[0]), int(rest[1])))
    elif what == "each":
        for port in (service, *rest):
            one(host, int(port))
    else:
        {"one": one, "hold": hold, "loop": loop}[what](host, int(service))
