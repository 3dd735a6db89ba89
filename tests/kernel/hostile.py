"""A stranger with root's raw sockets: `hostile.py SEED COUNT TCP-PORT UDP-PORT CONTROL-PORT`.

Sends COUNT odd IP packets each to two listening ports: options, fragments, lengths and flags that lie,
extension headers.  Prints JSON: for each port, how many SYN+ACK or datagrams came back from it.
CONTROL-PORT is a listener of nobody's mesh, which gets plain SYNs: it shows that these would be heard.
"""

import json
import random
import socket
import struct
import sys
from collections import Counter

HOST = ("10.0.2.15", "127.0.0.1")
SYN, ACK = 0x02, 0x10
ANY = (0, 1, 5, 6, 15, 255)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(chance: random.Random, port: int, protocol: int, pseudo: bytes, *, plain: bool = False) -> bytes:
    """A TCP segment (mostly SYN) or a datagram with a right checksum; odd in its other fields."""
    source = chance.choice((port, 53, 1, chance.randrange(1024, 40000)))
    data = b"" if plain else chance.randbytes(chance.choice((0, 0, 1, 8, 100)))
    if protocol == socket.IPPROTO_UDP:
        length = 8 + len(data) if chance.random() < 0.7 else chance.choice((*ANY, 65535))
        body = struct.pack("!HHHH", source, port, length, 0) + data
        at = 6
    else:
        flags = SYN if plain or chance.random() < 0.6 else chance.randrange(256)
        options = b"" if plain else chance.randbytes(4 * chance.randrange(11))
        if not plain and chance.random() < 0.3:
            options = b"\x22\x02\1\1" + b"\x1e\x0c" + chance.randbytes(10)  # Fast Open, MPTCP
        words = 5 + len(options) // 4 if chance.random() < 0.8 else chance.choice((0, 4, 5, 15))
        sequence, acknowledge = chance.getrandbits(32), 0 if plain else chance.getrandbits(32)
        head = struct.pack("!HHIIBBHHH", source, port, sequence, acknowledge, words << 4, flags, 65535, 0, 0)
        body, at = head + options + data, 16
    total = checksum(pseudo + struct.pack("!I", len(body)) + bytes((0, 0, 0, protocol)) + body)
    return body[:at] + struct.pack("!H", total) + body[at + 2 :]


def packet4(chance: random.Random, port: int, protocol: int, *, plain: bool = False) -> tuple[bytes, str]:
    """An IPv4 packet, and where it goes."""
    to = chance.choice(HOST)
    source = to if plain else chance.choice((*HOST, "127.0.0.9", "1.1.1.1", "2.2.2.2", "0.0.0.0"))
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    body = segment(chance, port, protocol, ends, plain=plain)
    options, fragment, words = b"", 0, 5
    if not plain:
        match chance.randrange(5):
            case 0:
                options = chance.choice(
                    (b"\1\1\1\0", b"\x07\x07\x04\0\0\0\0\0", b"\x83\x07\x04\x01\x01\x01\x01\0", b"\x94\4\0\0")
                )
                words += len(options) // 4
            case 1:
                fragment = chance.choice((0x2000, 0x2001, 0x0001, 0x4000, 0x8000, chance.getrandbits(16)))
            case 2:
                body = body[: chance.randrange(len(body) + 1)]
            case 3:
                words = chance.choice((0, 4, 6, 15))
    first = 0x40 | words
    head = (
        struct.pack("!BBHHHBBH", first, 0, 0, chance.getrandbits(16), fragment, 64, protocol, 0)
        + ends
        + options
    )
    return head + body, to


def packet6(chance: random.Random, port: int, protocol: int) -> bytes:
    """An IPv6 packet to ::1 with extension headers."""
    one = bytes(15) + b"\1"
    body = segment(chance, port, protocol, one + one)
    chain = protocol
    for _ in range(chance.randrange(3)):
        kind = chance.choice((0, 43, 44, 60, 51, 135))
        rest = (
            struct.pack("!HI", chance.choice((0, 1, 8, 9)), 7)
            if kind == 44
            else chance.choice((b"\1\4\0\0\0\0", bytes(6)))
        )
        body = bytes((chain, 0)) + rest + body
        chain = kind
    length = len(body) if chance.random() < 0.9 else chance.getrandbits(16)
    return struct.pack("!IHBB", 0x60000000, length, chain, 64) + one + one + body


def heard(sniffer: socket.socket, ports: dict[int, str], found: Counter[str]) -> None:
    """Counts what came from the ports."""
    while True:
        try:
            data = sniffer.recv(65536)[14:]
        except BlockingIOError:
            return
        if len(data) < 48:
            data += bytes(48)
        at, protocol = (40, data[6]) if data[0] >> 4 == 6 else ((data[0] & 15) * 4, data[9])
        source = int.from_bytes(data[at : at + 2], "big")
        asks = int.from_bytes(data[at + 2 : at + 4], "big") == source  # our own, from the same port
        if source in ports and not asks:
            if protocol == socket.IPPROTO_TCP and data[at + 13] & (SYN | ACK) == SYN | ACK:
                found[ports[source]] += 1
            if protocol == socket.IPPROTO_UDP and b"yes" in data:  # the server's answer, and nothing of ours
                found[ports[source]] += 1


def main(seed: int, count: int, tcp: int, udp: int, control: int) -> None:
    """See above."""
    chance, found = random.Random(seed), Counter[str]()
    ports = {tcp: "tcp", udp: "udp", control: "control"}
    raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind(("lo", 0))
    sniffer.setblocking(False)
    sent = refused = 0
    for number in range(count):
        for port, protocol in ((tcp, socket.IPPROTO_TCP), (udp, socket.IPPROTO_UDP)):
            try:
                if chance.random() < 0.25:
                    raw6.sendto(packet6(chance, port, protocol), ("::1", 0))
                else:
                    data, to = packet4(chance, port, protocol)
                    raw4.sendto(data, (to, 0))
                sent += 1
            except OSError:  # the kernel does not send what has no sense at all
                refused += 1
        if number % 50 == 0:
            data, to = packet4(chance, control, socket.IPPROTO_TCP, plain=True)
            raw4.sendto(data, (to, 0))
        heard(sniffer, ports, found)
    print(json.dumps({"sent": sent, "refused": refused, **found}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
