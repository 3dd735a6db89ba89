"""Sockets from hand to hand: `pass.py give PATH` makes a TCP and a UDP socket and sends them to PATH once;
`pass.py take PATH ADDRESS PORT` waits for them there, prints `have` and, at a line of its standard input,
dials ADDRESS PORT with the first; prints what came of it."""

import errno
import os
import socket
import sys

what, path, *rest = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
    if what == "give":
        door.connect(path)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            socket.send_fds(door, [b"x"], [tcp.fileno(), udp.fileno()])
            door.recv(1)
    else:
        door.bind(path)
        os.chmod(path, 0o666)
        door.listen(1)
        print("waits", flush=True)
        giver, _ = door.accept()
        _, descriptors, _, _ = socket.recv_fds(giver, 1, 2)
        giver.send(b"x")
        giver.close()
        print("have", flush=True)
        sys.stdin.readline()
        to = rest[0], int(rest[1])
        with socket.socket(fileno=descriptors[0]) as tcp, socket.socket(fileno=descriptors[1]) as udp:
            for sock in (tcp, udp):
                try:
                    sock.settimeout(5)
                    sock.connect(to)
                    sock.send(b"passed on")
                    print("sent", flush=True)
                except OSError as error:
                    print(errno.errorcode.get(error.errno or 0, "timeout"), flush=True)
            try:
                tcp.bind(("0.0.0.0", 0))
            except OSError:
                pass
