"""Listens and tells what reaches it: `witness.py [tcp|udp]:ADDRESS:PORT ...`.

One line for each first message: `WHERE FROM-ADDRESS TEXT`.  TCP connections that say nothing: `(connected)`.
"""

import selectors
import socket
import sys


def main() -> None:
    """Serves until it is killed."""
    selector = selectors.DefaultSelector()
    for spec in sys.argv[1:]:
        kind, rest = spec.split(":", 1)
        host, port = rest.rsplit(":", 1)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        sock.bind((host, int(port)))
        if kind == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
            sock.listen(64)
        selector.register(sock, selectors.EVENT_READ, spec)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            listener = key.fileobj
            assert isinstance(listener, socket.socket)
            if key.data.startswith("udp"):
                text, sender = listener.recvfrom(2048)
            else:
                connection, sender = listener.accept()
                connection.settimeout(2)
                try:
                    text = connection.recv(2048) or b"(connected)"
                    connection.sendall(b"got it\n")
                except OSError:
                    text = b"(connected)"
                connection.close()
            print(key.data, sender[0], text.decode(errors="replace"), flush=True)


main()
