"""TCP: names, errors, the life of a connection and of a listener."""

# ruff: noqa: B023, E501, F403, F405  (programs of one line a step)
# fmt: off

import errno
import select
import signal
import socket
import struct
import threading
import time

from stage import *


@case
class names:
    def server(link: Link) -> None:
        for address, family, dialled in (("", socket.AF_INET, SERVER), (SERVER, socket.AF_INET, SERVER), ("::", socket.AF_INET6, SERVER), ("::ffff:" + SERVER, socket.AF_INET6, "::ffff:" + SERVER)):
            s = listening((address, port()), family, REUSEADDR)
            link.tell(dialled)
            c, peer = take(s)
            say(s.getsockname(), told(s.getpeername), c.getsockname(), host(peer), peer == c.getpeername(), peer[1] == link.hear())
            say(get(c), c.send(b"answer"), get(c), soft_error(c))
            c.close()
            s.close()
        link.meet()

    def client(link: Link) -> None:
        for _ in range(4):
            dialled = link.hear()
            s = tcp(socket.AF_INET6 if ":" in dialled else socket.AF_INET)
            say(s.getsockname(), told(s.getpeername))
            say(dial(s, (dialled, port())), s.getpeername(), host(s.getsockname()), s.getsockname()[1] > 0)
            link.tell(s.getsockname()[1])
            s.send(b"question")
            say(get(s))
            s.shutdown(socket.SHUT_WR)
            say(get(s), told(s.getpeername), host(s.getsockname()))
        link.meet()


@case
class refused:
    def server(link: Link) -> None:
        link.meet()

    def client(link: Link) -> None:
        for family, address in ((socket.AF_INET, SERVER), (socket.AF_INET6, "::ffff:" + SERVER)):
            s = tcp(family)
            say(dial(s, (address, 9)), soft_error(s), told(s.getpeername), ready(s, select.POLLIN | select.POLLOUT, 0.1), told(s.send, b"x"), told(s.recv, 9))
            say(dial(s, (address, 9)), soft_error(s))
        say(tcp().connect_ex((SERVER, 9)) == (errno.ECONNREFUSED if BLOCKING else errno.EINPROGRESS))
        link.meet()


@case
class connected_twice:
    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        take(s)
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = tcp()
        say(dial(s, (SERVER, port())), dial(s, (SERVER, port())), dial(s, (SERVER, 9)), s.getpeername(), host(s.getsockname()))
        say(disconnect(s), told(s.getpeername), s.getsockname()[0], dial(s, (SERVER, 9)))
        link.meet()


@case
class disconnected_and_used_again:
    def server(link: Link) -> None:
        s, t = listening(("", port())), listening(("", port(1)))
        link.meet()
        a, b = take(s)[0], take(t)[0]
        say(get(a), get(b), a.getsockname(), b.getsockname())
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = tcp()
        say(dial(s, (SERVER, port())), s.send(b"first"), disconnect(s), told(s.getpeername), dial(s, (SERVER, port(1))), s.getpeername(), s.send(b"second"))
        link.meet()


@case
class half_closed:
    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        c = take(s)[0]
        say(get(c), get(c), c.send(b"still here"), told(c.shutdown, socket.SHUT_WR), told(c.send, b"x"), told(c.shutdown, socket.SHUT_RDWR))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = tcp()
        say(dial(s, (SERVER, port())), s.send(b"all"), told(s.shutdown, socket.SHUT_WR), get(s), get(s), told(s.send, b"x"))
        link.meet()
        say(told(tcp().shutdown, socket.SHUT_RDWR))


@case
class reset:
    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        c = take(s)[0]
        link.meet()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        s = tcp()
        say(dial(s, (SERVER, port())))
        link.meet()
        link.meet()
        say(ready(s, select.POLLIN) & (select.POLLERR | select.POLLHUP), get(s), get(s), soft_error(s), told(s.getpeername), host(s.getsockname()))


@case
class listener_closed_and_bound_again:
    def server(link: Link) -> None:
        for how in "close", "shutdown", "listen again":
            s = listening(("", port()), socket.AF_INET, REUSEADDR)
            link.meet()
            c = take(s)[0]
            if how == "shutdown":
                say(told(s.shutdown, socket.SHUT_RD), s.getsockname(), told(s.accept), told(s.listen, 5))
                link.meet()
                c = take(s)[0]
            elif how == "listen again":
                say(told(s.listen, 1), told(s.listen, 99), told(s.bind, ("", port())), dial(s, (SERVER, 9)))
            s.close()
            link.meet()
            say(told(c.send, b"lives on"))
            link.meet()
            c.close()
        say(told(listening, ("", port())))
        link.meet()

    def client(link: Link) -> None:
        for how in "close", "shutdown", "listen again":
            link.meet()
            s = tcp()
            say(how, dial(s, (SERVER, port())))
            if how == "shutdown":
                link.meet()
                s = tcp()
                say(dial(s, (SERVER, port())))
            link.meet()
            say(dial(tcp(), (SERVER, port())), get(s))
            link.meet()
            get(s)
        link.meet()


@case
class backlog:
    def server(link: Link) -> None:
        s = tcp()
        s.bind(("", port()))
        s.listen(1)
        link.meet()
        link.hear()
        say([host(take(s)[1]) for _ in range(2)])
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        k = [tcp() for _ in range(2)]
        say([dial(s, (SERVER, port())) for s in k])
        full = tcp()
        full.settimeout(0.3)
        say(told(full.connect, (SERVER, port())))
        link.tell()
        link.meet()


@case
class source_ports:
    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        for _ in range(3):
            c, peer = take(s)
            say(peer, get(c))
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        for address in ("", CLIENT):
            s = tcp(socket.AF_INET, REUSEADDR)
            s.bind((address, port(10 + 0) + len(address)))
            say(dial(s, (SERVER, port())), s.getsockname(), s.send(b"x"))
        s = tcp()
        s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        s.bind((CLIENT, 0))
        say(s.getsockname())
        s = tcp(socket.AF_INET, REUSEADDR)
        s.bind(("", port(10 + 9)))
        say(dial(s, (SERVER, port())), s.getsockname(), s.send(b"x"))
        say(told(tcp().bind, ("", port(10 + 9))), told(tcp().bind, ("9.9.9.9", port(15))), told(tcp().bind, ("9.9.9.9", 0)))
        link.meet()


@case
def bound_to_port_0() -> None:
    for address, family in (("", socket.AF_INET), ("127.0.0.1", socket.AF_INET), (OWN, socket.AF_INET), ("::", socket.AF_INET6), ("::1", socket.AF_INET6)):
        s = tcp(family)
        say(s.getsockname()[:2], told(s.bind, (address, 0)), host(s.getsockname()), s.getsockname()[1] > 1023)
        port = s.getsockname()[1]
        say(told(tcp(family).bind, (address, port)), told(s.listen), s.getsockname()[1] == port, told(tcp(family).bind, (address, port)))
        there = address or "127.0.0.1"
        c = tcp(family)
        say(dial(c, (there, port)), c.getpeername()[1] == port, host(take(s)[1]))
        s.close()
    s = tcp()
    say(told(s.listen), s.getsockname()[0], s.getsockname()[1] > 1023, dial(tcp(), ("127.0.0.1", s.getsockname()[1])))


@case
def no_timewait_in_the_way() -> None:
    for _ in range(3):
        s = listening(("127.0.0.1", port()), socket.AF_INET, REUSEADDR)
        c = tcp()
        say(dial(c, ("127.0.0.1", port())))
        take(s)[0].close()
        say(get(c))
        s.close()
    say(told(listening, ("127.0.0.1", port())))


@case
def accept_in_every_way() -> None:
    s = listening(("127.0.0.1", port()))
    for _ in range(2):
        c = tcp()
        say(dial(c, ("127.0.0.1", port())), ready(s, select.POLLIN))
        a, peer = take(s)
        say(peer == c.getsockname(), a.getsockname() == c.getpeername(), a.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    epoll = select.epoll()
    epoll.register(s, select.EPOLLIN | select.EPOLLET)
    say(epoll.poll(0.05))
    c = tcp()
    say(dial(c, ("127.0.0.1", port())), [events for _, events in epoll.poll(5)], epoll.poll(0.05))
    epoll.close()


@case
def edges_of_a_connect() -> None:
    s = listening(("127.0.0.1", port()))
    c = tcp()
    poll = select.poll()
    poll.register(c)
    say(poll.poll(0) == [(c.fileno(), select.POLLOUT | select.POLLHUP)], soft_error(c))
    say(dial(c, ("127.0.0.1", port())), poll.poll(0)[0][1], soft_error(c), info(c))
    take(s)[0].close()
    say(ready(c, select.POLLIN), get(c), info(c), info(s))
    epoll = select.epoll()
    d = tcp()
    epoll.register(d, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    say([events for _, events in epoll.poll(0)])
    say(dial(d, ("127.0.0.1", port())), [events for _, events in epoll.poll(1)], epoll.poll(0.05))
    epoll.close()


@case
def what_a_socket_says_of_itself() -> None:
    for s in tcp(), tcp(socket.AF_INET6), listening(("127.0.0.1", port())):
        say(s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), s.getsockopt(socket.SOL_SOCKET, 38), s.getsockopt(socket.SOL_SOCKET, 39))  # SO_PROTOCOL, SO_DOMAIN
        cookie = s.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE
        say(cookie == s.dup().getsockopt(socket.SOL_SOCKET, 57, 8), cookie != tcp().getsockopt(socket.SOL_SOCKET, 57, 8), info(s))
        say(len(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 999)), told(s.getsockopt, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    for option in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_DEFER_ACCEPT, socket.TCP_USER_TIMEOUT, socket.TCP_SYNCNT):
        s = tcp()
        say(option, told(s.setsockopt, socket.IPPROTO_TCP, option, 1), s.getsockopt(socket.IPPROTO_TCP, option))


@case
def time_limits() -> None:
    s = listening(("127.0.0.1", port()))
    if not BLOCKING:
        return
    for option, call in ((socket.SO_RCVTIMEO, s.accept), (socket.SO_RCVTIMEO, None), (socket.SO_SNDTIMEO, None)):
        c = tcp()
        for sock in s, c:
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 100000))
        if call is None:
            c.connect(("127.0.0.1", port()))
            call = (lambda c=c: c.recv(9)) if option == socket.SO_RCVTIMEO else (lambda c=c: [c.send(bytes(1 << 20)) for _ in range(99)])
        began = time.monotonic()
        say(option, told(call), 0.05 < time.monotonic() - began < 3, struct.unpack("ll", c.getsockopt(socket.SOL_SOCKET, option, 16))[1] // 1000 * 1000)


@case
class waits_and_signals:
    """A connect() that waits: SO_SNDTIMEO, EALREADY, EINTR with and without SA_RESTART."""

    def server(link: Link) -> None:
        s = tcp()
        s.bind(("", port()))
        s.listen(0)
        link.meet()
        link.hear()
        say([host(take(s)[1]) for _ in range(2)])
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        say(dial(tcp(), (SERVER, port())))  # the backlog is full with it
        for how in "SNDTIMEO", "EALREADY", "EINTR", "SA_RESTART":
            s = tcp()
            began = time.monotonic()
            if how == "SNDTIMEO":
                s.setblocking(True)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200000))
                say(how, name_of(s.connect_ex((SERVER, port()))), 0.1 < time.monotonic() - began < 3, name_of(s.connect_ex((SERVER, port()))), soft_error(s))
            elif how == "EALREADY":
                s.setblocking(False)
                say(how, [name_of(s.connect_ex((SERVER, port()))) for _ in range(3)], ready(s, select.POLLOUT, 0), told(s.getpeername), host(s.getsockname()), info(s), told(s.send, b"x"), told(s.recv, 9))
                say(disconnect(s), soft_error(s), info(s))
            else:
                s.setblocking(True)
                hits = []
                signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
                signal.siginterrupt(signal.SIGUSR1, how == "EINTR")
                main = threading.main_thread().ident
                timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGUSR1))
                timer.start()
                if how == "SA_RESTART":
                    threading.Timer(0.4, link.tell).start()  # there is room, then
                result = libc_connect(s, (SERVER, port()))
                timer.join()
                say(how, result, len(hits), time.monotonic() - began > 0.4)
        link.meet()


def libc_connect(sock: socket.socket, address: tuple[str, int]) -> str:
    """connect() as the C library does it: Python's own goes on after EINTR."""
    raw = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(address[1]), socket.inet_aton(address[0]))
    return "ok" if libc.connect(sock.fileno(), raw, 16) == 0 else name_of(ctypes.get_errno())


@case
def dialled_itself() -> None:
    s = tcp()
    s.bind(("127.0.0.1", port()))
    say(dial(s, ("127.0.0.1", port())))


@case
def nobody_there() -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.9.9.9"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET, OWN), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::"), (socket.AF_INET6, "::ffff:127.0.0.1"), (socket.AF_INET, "9.9.9.9"), (socket.AF_INET6, "fd99::1")):
        s = tcp(family)
        say(address, dial(s, (address, 9)), soft_error(s), told(s.getpeername))
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_INET, ("255.255.255.255", 9)), (socket.AF_INET, ("224.0.0.1", 9))):
        say(address, dial(tcp(family), address))


@case
def wrong_arguments() -> None:
    s = tcp()
    six = tcp(socket.AF_INET6)
    raw = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port()), socket.inet_aton("127.0.0.1"))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in libc.bind, libc.connect:
        for sock, data, size in ((s, raw, 15), (s, raw, 8), (s, raw, 2), (s, bytes([99, 0]) + raw[2:], 16), (six, raw, 16), (s, None, 16), (six, bytes([10, 0]) + bytes(26), 20)):
            result = call(sock.fileno(), data, size)
            say(call.__name__, size, "ok" if result == 0 else name_of(ctypes.get_errno()))
