"""What would command the node's network through a socket, and what usual programs ask: `commands.py LINK`.

Prints two objects, {what: errno name or "done"}.
"""

import errno
import fcntl
import json
import socket
import struct
import sys
from collections.abc import Callable

TCP, V4, V6, ALL = 6, 0, 41, socket.SOL_SOCKET
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
udp6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
link = sys.argv[1].encode()
request = struct.pack("16sH14x", link, 0)
GROUP = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.0.2.15")
GROUP6 = socket.inet_pton(socket.AF_INET6, "ff02::7") + struct.pack("=i", 1)
REQUESTS = {
    "SIOCADDRT": 0x890B,
    "SIOCSIFFLAGS": 0x8914,
    "SIOCSIFADDR": 0x8916,
    "SIOCETHTOOL": 0x8946,
    "SIOCGSKNS": 0x894C,
    "SIOCBRADDBR": 0x89A0,
    "SIOCSIWFREQ": 0x8B04,
}
OPTIONS: dict[str, tuple[socket.socket, int, int, int | bytes]] = {
    "SO_BINDTODEVICE": (tcp, ALL, 25, link),
    "SO_BINDTOIFINDEX": (tcp, ALL, 62, 1),
    "SO_MARK": (tcp, ALL, 36, 1),
    "SO_RCVBUFFORCE": (tcp, ALL, 33, 1 << 20),
    "IP_TRANSPARENT": (tcp, V4, 19, 1),
    "IP_UNICAST_IF": (udp, V4, 50, socket.htonl(1)),
    "TCP_REPAIR": (tcp, TCP, 19, 1),
    "IP_ADD_MEMBERSHIP": (udp, V4, 35, GROUP),
    "IPV6_JOIN_GROUP": (udp6, V6, 20, GROUP6),
    "IPV6_TRANSPARENT": (udp6, V6, 75, 1),
    "IPT_SO_SET_REPLACE": (tcp, V4, 64, bytes(100)),
}
QUESTIONS = {
    "FIONREAD": (tcp, 0x541B),
    "SIOCOUTQ": (tcp, 0x5411),
    "SIOCATMARK": (tcp, 0x8905),
    "SIOCGIFCONF": (udp, 0x8912),
    "SIOCGIFADDR": (udp, 0x8915),
    "SIOCGIFINDEX": (udp, 0x8933),
}
HARMLESS = (
    (tcp, ALL, socket.SO_KEEPALIVE, 1),
    (tcp, TCP, socket.TCP_NODELAY, 1),
    (udp, V4, socket.IP_MULTICAST_TTL, 2),
    (udp, ALL, socket.SO_BROADCAST, 1),
)


def attempt(what: Callable[..., object], *arguments: object) -> str:
    """What came of it."""
    try:
        what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


found = {name: attempt(fcntl.ioctl, tcp, number, request) for name, number in REQUESTS.items()}
for name, (sock, *option) in OPTIONS.items():
    found[name] = attempt(sock.setsockopt, *option)
fine = {}
for name, (sock, number) in QUESTIONS.items():
    argument = bytes(40) if name == "SIOCGIFCONF" else struct.pack("16s24x", b"lo")
    fine[name] = attempt(fcntl.ioctl, sock, number, argument)
for sock, level, option, value in HARMLESS:
    fine[f"{level}/{option}"] = attempt(sock.setsockopt, level, option, value)
print(json.dumps([found, fine]))
