"""An app that does what its standard input says: `puppet.py NAME [PORT]`, for the differential test.

With a PORT it listens there from the start and goes on after the end of its input.

One JSON object a line, one JSON answer a line:
{"listen": PORT, "address": A}   listens there; every client is told the app's name
{"close": PORT}                  stops listening
{"dial": [[A, PORT], …]}         [{"name": N} or {"errno": E} for each]
"""

import json
import socket
import sys
import threading

NAME = sys.argv[1]
listeners: dict[int, socket.socket] = {}


def serve(listener: socket.socket) -> None:
    """Greets until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(NAME.encode())
        except OSError:
            return


def listen(port: int, address: str) -> None:
    """Opens one more listener."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(128)
    listeners[port] = listener
    threading.Thread(target=serve, args=(listener,), daemon=True).start()


def close(port: int) -> None:
    """Ends a listener (shutdown wakes its thread)."""
    listener = listeners.pop(port)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def dial(address: str, port: int) -> dict[str, str | int]:
    """One connection: who greets, or why not."""
    with socket.socket() as sock:
        sock.settimeout(5)
        try:
            sock.connect((address, port))
            return {"name": sock.recv(64).decode()}
        except OSError as error:
            return {"errno": error.errno or -1}


if len(sys.argv) > 2:
    listen(int(sys.argv[2]), "0.0.0.0")
    threading.Event().wait()
for line in sys.stdin:
    order = json.loads(line)
    answer: object = "done"
    if "listen" in order:
        listen(order["listen"], order["address"])
    elif "close" in order:
        close(order["close"])
    else:
        answer = [dial(address, port) for address, port in order["dial"]]
    print(json.dumps(answer), flush=True)
