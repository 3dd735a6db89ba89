"""UDP: `udp.py server PORT`, `udp.py connected|unconnected ADDRESS PORT` (five questions).

The server answers with the address it saw; the client prints {answer, from, peername} of the last one.
"""

import json
import socket
import sys


def server(port: int) -> None:
    """Echo with the sender's address in front."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        while True:
            data, sender = sock.recvfrom(2048)
            sock.sendto(sender[0].encode() + b" " + data, sender)


def client(connected: bool, address: str, port: int) -> None:
    """Asks five times."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if connected:
            sock.connect((address, port))
        for number in range(5):
            question = f"question {number}".encode()
            if connected:
                sock.send(question)
            else:
                sock.sendto(question, (address, port))
            answer, sender = sock.recvfrom(2048)
        peer = sock.getpeername() if connected else None
        print(json.dumps({"answer": answer.decode(), "from": sender, "peername": peer}))


if sys.argv[1] == "server":
    server(int(sys.argv[2]))
else:
    client(sys.argv[1] == "connected", sys.argv[2], int(sys.argv[3]))
