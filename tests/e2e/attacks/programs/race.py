"""Two threads dial on one socket, one whither policy lets it and one not: `race.py ALLOWED REFUSED`.

Both port 7000.  Prints after two seconds how often.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable

Address = tuple[str, int]
places: list[Address] = [(sys.argv[1], 7000), (sys.argv[2], 7000)] * 2


def dial(sock: socket.socket, to: Address) -> None:
    """connect(), send()."""
    try:
        sock.connect(to)
        sock.send(b"raced")
    except OSError:
        pass


def send(sock: socket.socket, to: Address) -> None:
    """sendto()."""
    try:
        sock.sendto(b"raced", to)
    except OSError:
        pass


WAYS: list[tuple[socket.SocketKind, Callable[[socket.socket, Address], None]]] = [
    (socket.SOCK_STREAM, dial),
    (socket.SOCK_DGRAM, dial),
    (socket.SOCK_DGRAM, send),
]
end, rounds = time.monotonic() + 2, 0
while time.monotonic() < end:
    for kind, act in WAYS:
        with socket.socket(type=kind) as sock:
            sock.settimeout(1)
            threads = [threading.Thread(target=act, args=(sock, to)) for to in places]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    rounds += 1
print(rounds)
