"""UDP: connected and not, every call that sends or receives, errors that ICMP tells, names."""

# ruff: noqa: C416, E501, F403, F405, RUF059  (programs of one line a step)
# fmt: off

import ctypes
import select
import socket
import struct

from stage import *

MAPPED = "::ffff:"


@case
class questions_and_answers:
    """A client of each family, connected and not, to a server bound in each way."""

    def server(link: Link) -> None:
        for number, (address, family) in enumerate((("", socket.AF_INET), (SERVER, socket.AF_INET), ("::", socket.AF_INET6), (MAPPED + SERVER, socket.AF_INET6))):
            s = bound((address, port(number)), family)
            say(s.getsockname(), told(s.getpeername))
            link.meet()
            for _ in range(6):
                data, peer = get_from(s)
                say(data, host(peer), peer[1] > 1023, s.sendto(b"answer to " + data, peer))
            link.meet()

    def client(link: Link) -> None:
        for number in range(4):
            link.meet()
            for family, server in ((socket.AF_INET, SERVER), (socket.AF_INET6, MAPPED + SERVER)):
                there = (server, port(number))
                s = udp(family)
                say(s.getsockname()[:2], s.sendto(b"one", there), get_from(s), s.getsockname()[0], told(s.getpeername))
                say(s.sendmsg([b"t", b"wo"], [], 0, there), *[x for x in again(s, select.POLLIN, s.recvmsg, 99)])
                say(dial(s, there), s.getpeername(), s.getsockname()[0], s.send(b"three"), get(s))
            link.meet()


@case
class many_messages:
    """sendmmsg() and recvmmsg()."""

    def server(link: Link) -> None:
        s = bound(("", port()))
        link.meet()
        link.meet()
        say(receive_many(s, 4))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = udp()
        say(send_many(s, [(b"a", (SERVER, port())), (b"bb", (SERVER, port())), (b"c", (SERVER, port()))]))
        say(dial(s, (SERVER, port())), send_many(s, [(b"dddd", None)]))
        link.meet()
        link.meet()


class iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class msghdr(ctypes.Structure):
    _fields_ = (("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int))


class mmsghdr(ctypes.Structure):
    _fields_ = (("header", msghdr), ("size", ctypes.c_uint32))


def packed(address: tuple[str, int]) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0]))


def send_many(sock, messages):
    """sendmmsg(): the result, and the sizes."""
    array = (mmsghdr * len(messages))()
    keep = []
    for slot, (data, address) in zip(array, messages, strict=True):
        text = ctypes.create_string_buffer(data, len(data))
        vector = iovec(ctypes.addressof(text), len(data))
        name = ctypes.create_string_buffer(packed(address), 16) if address else None
        keep += [text, vector, name]
        slot.header.iov, slot.header.iovlen = ctypes.addressof(vector), 1
        if name:
            slot.header.name, slot.header.namelen = ctypes.addressof(name), 16
    result = libc.sendmmsg(sock.fileno(), array, len(messages), 0)
    return (result if result >= 0 else name_of(ctypes.get_errno())), [slot.size for slot in array]


def receive_many(sock, count):
    """recvmmsg(): data and hosts."""
    ready(sock, select.POLLIN)
    array = (mmsghdr * count)()
    keep = []
    for slot in array:
        text, name = ctypes.create_string_buffer(99), ctypes.create_string_buffer(16)
        vector = iovec(ctypes.addressof(text), 99)
        keep.append((text, name, vector))
        slot.header.iov, slot.header.iovlen = ctypes.addressof(vector), 1
        slot.header.name, slot.header.namelen = ctypes.addressof(name), 16
    result = libc.recvmmsg(sock.fileno(), array, count, socket.MSG_DONTWAIT, None)
    got = [(text.raw[: slot.size], socket.inet_ntoa(name.raw[4:8])) for slot, (text, name, _) in zip(array, keep, strict=True)]
    return result, got[: max(result, 0)]


@case
class flags_of_receive:
    def server(link: Link) -> None:
        s = bound(("", port()))
        link.meet()
        link.meet()
        say(ready(s, select.POLLIN), get_from(s, 99, socket.MSG_PEEK)[0], get_from(s, 2, socket.MSG_PEEK)[0], len(get(s, 2, socket.MSG_TRUNC)), get(s))
        text = bytearray(3)
        again(s, select.POLLIN, s.recvfrom_into, text)
        say(text, told(s.recv, 9, socket.MSG_DONTWAIT), again(s, select.POLLIN, s.recvmsg, 9) if not nothing(s) else "empty")
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = udp()
        for text in b"first", b"second", b"third":
            s.sendto(text, (SERVER, port()))
        link.meet()
        link.meet()


@case
class nobody_there:
    """ECONNREFUSED comes with the next call, and goes with it."""

    def server(link: Link) -> None:
        link.meet()

    def client(link: Link) -> None:
        for family, server in ((socket.AF_INET, SERVER), (socket.AF_INET6, MAPPED + SERVER)):
            s = udp(family)
            say(dial(s, (server, 9)), s.getpeername(), host(s.getsockname()), s.send(b"x"), ready(s, select.POLLIN), soft_error(s), soft_error(s))
            say(s.send(b"x"), ready(s, select.POLLIN), told(s.send, b"x"))
            s = udp(family)
            say(dial(s, (server, 9)), s.send(b"x"), get(s), told(s.getpeername), s.send(b"y"), ready(s, select.POLLIN), told(s.recv, 9))
            s = udp(family)
            say(s.sendto(b"x", (server, 9)), nothing(s), soft_error(s), s.sendto(b"x", (server, 9)))
        s = udp()
        s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        say(s.sendto(b"question", (SERVER, 9)), ready(s, select.POLLIN) & select.POLLERR, told(s.sendto, b"x", (SERVER, 9)))
        data, control, flags, address = s.recvmsg(99, 512, socket.MSG_ERRQUEUE)
        say(data, flags, address, [(level, kind, text[:8].hex()) for level, kind, text in control])
        s.setsockopt(socket.IPPROTO_IP, 11, 0)
        s = udp()
        say(dial(s, (SERVER, 9)), dial(s, (SERVER, 9)), disconnect(s), told(s.getpeername), s.getsockname()[0], told(s.send, b"x"))
        link.meet()


@case
class server_comes_later:
    """connect() of UDP before anybody serves."""

    def server(link: Link) -> None:
        link.meet()
        s = bound(("", port()))
        link.meet()
        say(get(s) if not nothing(s) else "nothing came")
        link.meet()

    def client(link: Link) -> None:
        s = udp()
        say(dial(s, (SERVER, port())))
        link.meet()
        link.meet()
        say(told(s.send, b"now"))
        link.meet()


@case
class connected_sockets_filter:
    """What does not come from the peer does not arrive."""

    def server(link: Link) -> None:
        s, t = bound(("", port())), bound(("", port(1)))
        link.meet()
        data, peer = get_from(s)
        say(t.sendto(b"from another port", peer), s.sendto(b"from the same", peer))
        link.meet()
        say(dial(s, peer), s.getpeername() == peer, s.send(b"connected"), host(s.getsockname()))
        link.meet()
        link.meet()
        say(nothing(s), disconnect(s))
        link.meet()
        say(get(s), s.getsockname())
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = udp()
        say(dial(s, (SERVER, port())), s.send(b"x"))
        link.meet()
        say(get_from(s), nothing(s) or get_from(s))
        link.meet()
        say(get_from(s) if not nothing(s) else "nothing")
        t = udp()
        t.sendto(b"of a stranger", (SERVER, port()))
        link.meet()
        link.meet()
        t.sendto(b"of a stranger, again", (SERVER, port()))
        link.meet()


@case
class ports_of_clients:
    def server(link: Link) -> None:
        s = bound(("", port()))
        link.meet()
        for _ in range(4):
            data, peer = get_from(s)
            say(data, peer if peer[1] < 30000 else host(peer), s.sendto(data, peer))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        for number, address in ((1, ""), (2, CLIENT), (0, ""), (0, CLIENT)):
            s = udp()
            s.bind((address, port(number) if number else 0))
            say(s.sendto(b"x", (SERVER, port())), get_from(s), host(s.getsockname()), told(udp().bind, ("", s.getsockname()[1])))
        link.meet()


@case
class one_socket_two_servers:
    def server(link: Link) -> None:
        s, t = bound(("", port())), bound(("", port(1)))
        link.meet()
        for sock in s, t:
            data, peer = get_from(sock)
            say(data, host(peer))
            sock.sendto(data, peer)
            link.tell(peer[1])
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = udp()
        s.sendto(b"first", (SERVER, port()))
        s.sendto(b"second", (SERVER, port(1)))
        say(sorted(get_from(s) for _ in range(2)), link.hear() == link.hear() == s.getsockname()[1])
        link.meet()


@case
class shut_down:
    def server(link: Link) -> None:
        s = bound(("", port()))
        link.meet()
        say(get(s), told(s.shutdown, socket.SHUT_RDWR))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = udp()
        say(told(udp().shutdown, socket.SHUT_WR), dial(s, (SERVER, port())), s.send(b"x"), told(s.shutdown, socket.SHUT_WR), told(s.send, b"x"), told(s.shutdown, socket.SHUT_RD), told(s.recv, 9))
        link.meet()


@case
def with_itself() -> None:
    for family, addresses in ((socket.AF_INET, ("127.0.0.1", "127.1.2.3", OWN)), (socket.AF_INET6, ("::1", MAPPED + "127.0.0.1", MAPPED + OWN))):
        for number, address in enumerate(addresses):
            s = bound((address, port(number + len(address))), family)
            c = udp(family)
            say(address, c.sendto(b"x", s.getsockname()), get_from(s)[1] == (*c.getsockname()[:0], *host_of(s, c)))
            say(dial(c, s.getsockname()), c.getsockname()[0], c.send(b"y"), get_from(s)[1] == c.getsockname(), s.sendto(b"z", c.getsockname()), get_from(c))
            say(dial(s, s.getsockname()), s.send(b"to myself"), get_from(s)[1] == s.getsockname())


def host_of(server, client):
    """An unconnected client's address, as its server sees it."""
    return (server.getsockname()[0], *client.getsockname()[1:])


@case
def several_on_one_port() -> None:
    for option in REUSEPORT, REUSEADDR:
        k = [bound(("127.0.0.1", port()), socket.AF_INET, option) for _ in range(2)]
        c = udp()
        for _ in range(20):
            c.sendto(b"x", ("127.0.0.1", port()))
        say(option[1], sum(len(drained(sock)) for sock in k), told(bound, ("127.0.0.1", port())))
        for sock in k:
            sock.close()


def drained(sock):
    """All that waits."""
    found = []
    while not nothing(sock, 0.05):
        found.append(sock.recv(99))
    return found


@case
def ancillary() -> None:
    s = bound(("", port()))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    c = udp()
    c.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
    c.sendto(b"x", ("127.0.0.1", port()))
    data, control, flags, address = again(s, select.POLLIN, s.recvmsg, 99, 99)
    say(data, flags, host(address), [(level, kind, text[4:].hex() if kind == 8 else text.hex()) for level, kind, text in control])
    source = struct.pack("=i4s4s", 0, socket.inet_aton("127.0.0.1"), bytes(4))
    say(s.sendmsg([b"back"], [(socket.IPPROTO_IP, 8, source)], 0, ("127.0.0.1", c.getsockname()[1])), get_from(c))
    c.sendmsg([b"12345678"], [(socket.SOL_UDP if hasattr(socket, "SOL_UDP") else 17, 103, struct.pack("=H", 4))], 0, ("127.0.0.1", port()))  # UDP_SEGMENT
    say(get(s), get(s))


@case
def sizes() -> None:
    s, c = bound(("127.0.0.1", port())), udp()
    for size in 0, 1, 65507, 65508:
        say(size, told(c.sendto, bytes(size), ("127.0.0.1", port())), len(get(s, 70000)) if size < 65508 else "")


@case
def wrong_addresses() -> None:
    for address in (("127.0.0.1", 0), ("255.255.255.255", 9), ("9.9.9.9", 9), (OWN, 9), ("0.0.0.0", 9)):
        s = udp()
        say(address, told(s.sendto, b"x", address), nothing(s, 0.05), soft_error(s), dial(udp(), address))
    for address in (("::1", 0), ("fd99::1", 9), ("::", 9), ("fe80::1", 9)):
        s = udp(socket.AF_INET6)
        say(address, told(s.sendto, b"x", address), nothing(s, 0.05), soft_error(s), dial(udp(socket.AF_INET6), address))
    say(told(udp().send, b"x"), told(udp().getpeername), told(udp().listen), told(udp().accept))
    s = udp()
    say(libc.sendto(s.fileno(), b"x", 1, 0, bytes(16), 16), libc.sendto(s.fileno(), b"x", 1, 0, packed(("127.0.0.1", 9))[:8], 8), name_of(ctypes.get_errno()))
    raw = bytes([0, 0]) + packed(("127.0.0.1", port()))[2:]  # AF_UNSPEC counts as AF_INET
    t = bound(("127.0.0.1", port()))
    say(libc.sendto(s.fileno(), b"x", 1, 0, raw, 16), get(t) if not nothing(t) else "nothing")
