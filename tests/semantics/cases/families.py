"""What is no TCP or UDP of the usual kind: TCP Fast Open, MPTCP, raw, packet, netlink and Unix sockets, io_uring."""

# ruff: noqa: E501, F403, F405  (programs of one line a step)
# fmt: off

import ctypes
import mmap
import os
import socket
import struct

from stage import *


@case
class fast_open:
    """Where the server serves: in every way, with and without a cookie."""

    def server(link: Link) -> None:
        s = tcp()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        s.bind(("", port()))
        s.listen(16)
        link.meet()
        for _ in range(6):
            c, peer = take(s)
            say(get(c), host(peer), c.getsockname(), c.send(b"answer"))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        for how in ("sendto", "sendmsg", "TCP_FASTOPEN_CONNECT") * 2:
            s = tcp()
            if how == "sendto":
                result = told(s.sendto, b"sendto", socket.MSG_FASTOPEN, (SERVER, port()))
            elif how == "sendmsg":
                result = told(s.sendmsg, [b"send", b"msg"], [], socket.MSG_FASTOPEN, (SERVER, port()))
            else:
                s.setsockopt(socket.IPPROTO_TCP, 30, 1)
                result = f"{dial(s, (SERVER, port()))} {s.getpeername()}"
                result += f" {told(s.send, b'option')}"
            if "EINPROGRESS" in str(result):
                ready(s, 4)
                say(how, "in progress", again(s, 4, s.send, how.encode()), get(s), s.getpeername(), s.getsockname()[0])
            else:
                say(how, result, get(s), s.getpeername(), s.getsockname()[0])
        link.meet()


@case
class fast_open_to_nobody:
    def server(link: Link) -> None:
        link.meet()

    def client(link: Link) -> None:
        if BLOCKING:
            for how in "sendto", "sendmsg":
                s = tcp()
                call = (s.sendto, b"x", socket.MSG_FASTOPEN, (SERVER, 9)) if how == "sendto" else (s.sendmsg, [b"x"], [], socket.MSG_FASTOPEN, (SERVER, 9))
                say(how, told(*call), told(s.getpeername))
        link.meet()


@case
def mptcp() -> None:
    say(told(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).getsockopt(socket.SOL_SOCKET, 38)))


@case
def unusual_sockets() -> None:
    for family, kind, protocol in (
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP),
        (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6), (socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_PACKET, socket.SOCK_DGRAM, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0), (socket.AF_NETLINK, socket.SOCK_DGRAM, 4), (socket.AF_UNIX, socket.SOCK_STREAM, 0), (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
        (socket.AF_INET, 99, 0), (99, socket.SOCK_STREAM, 0), (socket.AF_INET, socket.SOCK_STREAM, 17), (socket.AF_INET, socket.SOCK_DGRAM, 6), (socket.AF_INET, socket.SOCK_STREAM, 999),
        (socket.AF_INET, socket.SOCK_SEQPACKET, 0), (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    ):
        say(int(family), int(kind), protocol, told(lambda f=family, k=kind, p=protocol: type(socket.socket(f, k, p)).__name__))


@case
def flags_of_socket() -> None:
    import fcntl

    for flags in 0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK:
        fd = libc.socket(socket.AF_INET, socket.SOCK_STREAM | flags, 0)
        say(flags, fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)
        os.close(fd)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    s = socket.socket()
    say(s.fileno() == lowest)


@case
def unix_sockets() -> None:
    one, two = socket.socketpair()
    say(one.send(b"x"), two.recv(9), two.getpeername(), one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4] == struct.pack("i", os.getpid()))
    name = f"\0semantics-{os.getpid()}"
    s = socket.socket(socket.AF_UNIX)
    s.bind(name)
    s.listen()
    c = socket.socket(socket.AF_UNIX)
    say(told(c.connect, name), s.accept()[1], told(socket.socket(socket.AF_UNIX).bind, name))


@case
def netlink() -> None:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.bind((0, 0))
    s.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))  # RTM_GETLINK, dump
    say(struct.unpack_from("=H", s.recv(65536), 4)[0])


@case
def raw_on_loopback() -> None:
    """A ping of oneself."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.settimeout(3)
    packet = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
    packet = packet[:2] + struct.pack("!H", 0xFFFF - (0x0800 + 77 + 1)) + packet[4:]
    say(s.sendto(packet, ("127.0.0.1", 0)))
    kinds = {s.recv(999)[20] for _ in range(2)}
    say(kinds)


# --- io_uring, by its system calls

SETUP, ENTER = 425, 426
CONNECT, ACCEPT, SEND, RECV, SOCKET, BIND, LISTEN = 16, 13, 26, 27, 45, 56, 57


class Ring:
    """A ring of eight entries, one of which is used at a time."""

    def __init__(self) -> None:
        parameters = bytearray(120)
        buffer = (ctypes.c_char * 120).from_buffer(parameters)
        self.fd = libc.syscall(SETUP, 8, buffer)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        self.sq = struct.unpack_from("=10I", parameters, 40)
        self.cq = struct.unpack_from("=10I", parameters, 80)
        self.submission = mmap.mmap(self.fd, self.sq[6] + 8 * 4, offset=0)
        self.completion = mmap.mmap(self.fd, self.cq[5] + 16 * 16, offset=0x8000000)
        self.entries = mmap.mmap(self.fd, 8 * 64, offset=0x10000000)

    def call(self, opcode: int, fd: int, address: int = 0, length: int = 0, offset: int = 0, flags: int = 0) -> object:
        """One operation: its result, or the errno's name."""
        tail = struct.unpack_from("=I", self.submission, self.sq[1])[0]
        index = tail & 7
        struct.pack_into("=BBHiQQII28x", self.entries, 64 * index, opcode, 0, 0, fd, offset, address, length, flags)
        struct.pack_into("=I", self.submission, self.sq[6] + 4 * index, index)
        struct.pack_into("=I", self.submission, self.sq[1], tail + 1)
        libc.syscall(ENTER, self.fd, 1, 1, 1, None, 0)
        head = struct.unpack_from("=I", self.completion, self.cq[0])[0]
        result = struct.unpack_from("=Qi", self.completion, self.cq[5] + 16 * (head & 15))[1]
        struct.pack_into("=I", self.completion, self.cq[0], head + 1)
        return name_of(-result) if result < 0 else result

    def close(self) -> None:
        """Frees it."""
        for memory in self.submission, self.completion, self.entries:
            memory.close()
        os.close(self.fd)


def raw_address(address: tuple[str, int]) -> ctypes.Array:
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0])), 16)


@case
class io_uring:
    """bind, listen, accept, send and receive on one side; connect on the other."""

    def server(link: Link) -> None:
        ring = Ring()
        s = tcp()
        there = raw_address(("0.0.0.0", port()))
        bound = ring.call(BIND, s.fileno(), ctypes.addressof(there), 0, 16)
        say("bind", bound if bound != "EINVAL" else told(s.bind, ("", port())) and 0)
        heard = ring.call(LISTEN, s.fileno(), 0, 16)
        say("listen", heard if heard != "EINVAL" else told(s.listen) and 0, s.getsockname())
        link.meet()
        s.setblocking(True)
        name, size = ctypes.create_string_buffer(16), ctypes.c_uint32(16)
        fd = ring.call(ACCEPT, s.fileno(), ctypes.addressof(name), 0, ctypes.addressof(size))
        a = socket.socket(fileno=fd)
        say("accept", socket.inet_ntoa(name.raw[4:8]), a.getsockname(), a.getpeername()[0])
        text = ctypes.create_string_buffer(99)
        got = ring.call(RECV, a.fileno(), ctypes.addressof(text), 99)
        say("received", text.raw[: got if isinstance(got, int) else 0], ring.call(SEND, a.fileno(), ctypes.addressof(text), 3))
        ring.close()
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        ring = Ring()
        s = tcp()
        s.setblocking(True)
        for where in (SERVER, 9), ("127.0.0.1", 9), ("9.9.9.9", 9), (SERVER, port()):
            there = raw_address(where)
            say(where, ring.call(CONNECT, s.fileno(), ctypes.addressof(there), 0, 16), told(s.getpeername))
        text = ctypes.create_string_buffer(b"question", 8)
        say(ring.call(SEND, s.fileno(), ctypes.addressof(text), 8), s.recv(9), s.getsockname()[0])
        ring.close()
        link.meet()


@case
def io_uring_makes_a_socket() -> None:
    """And it is as good as another."""
    ring = Ring()
    fd = ring.call(SOCKET, socket.AF_INET, 0, 0, socket.SOCK_STREAM)
    kept = listening(("127.0.0.1", port()))
    c = made(socket.socket(fileno=fd))
    say(kept.getsockname()[0], dial(c, ("127.0.0.1", port())), told(c.getpeername))
    ring.close()
