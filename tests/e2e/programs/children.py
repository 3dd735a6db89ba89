"""Clients that are children, by fork, exec and as a daemon: `children.py ADDRESS PORT`.

Prints one line a child: what it got from the server at ADDRESS:PORT.
"""

import os
import socket
import subprocess
import sys


def dial() -> str:
    """The first line the server says."""
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as sock:
        return sock.makefile().readline()


if len(sys.argv) > 3:
    print("exec", dial(), end="", flush=True)
    sys.exit(0)
if os.fork() == 0:
    print("fork", dial(), end="", flush=True)
    os._exit(0)
os.wait()
subprocess.run([sys.executable, __file__, *sys.argv[1:3], "child"], check=True)
reader, writer = os.pipe()
if os.fork() == 0:  # a daemon: its parent ends first, init adopts it, the cgroup stays
    os.setsid()
    if os.fork() == 0:
        os.write(writer, f"daemon {dial()}".encode())
        os._exit(0)
    os._exit(0)
os.wait()
os.close(writer)
sys.stdout.write(os.fdopen(reader).read())
