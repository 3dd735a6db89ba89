"""Sends descriptors whose last close() takes eight seconds: `linger.py DAEMON-SOCKET first|second|unread`.

TCP sockets with SO_LINGER and bytes that nobody reads; several, as the trap is for who closes last.  As
nobody: to be run as root.
"""

import os
import socket
import struct
import sys
import threading
import time

os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
path, when = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0))
kept: list[socket.socket] = []


def trap() -> socket.socket:
    """One such socket."""
    sock = socket.socket()
    sock.connect(listener.getsockname())
    reader, _ = listener.accept()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    kept.append(reader)
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 8))
    return sock


for sock in [trap() for _ in range(8)]:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.connect(path)
    try:
        if when != "first":
            door.send(b"{}" if when == "unread" else b'{"version":1,"command":["true"]}')
        socket.send_fds(door, [b"filter"], [sock.fileno()])
    except BrokenPipeError:  # refused already: this one was too slow
        pass
    threading.Thread(target=sock.close, daemon=True).start()
    kept.append(door)
print("sent", flush=True)
time.sleep(60)
