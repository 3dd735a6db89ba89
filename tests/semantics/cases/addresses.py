"""Which binds go together, and who then answers where: every pair of addresses, every option."""

# ruff: noqa: E501, F403, F405  (programs of one line a step)
# fmt: off

import itertools
import select
import socket

from stage import *

V4, V6 = socket.AF_INET, socket.AF_INET6
ENDS = {
    "0.0.0.0": (V4, "0.0.0.0", ()),
    "127.0.0.1": (V4, "127.0.0.1", ()),
    "127.0.0.2": (V4, "127.0.0.2", ()),
    "OWN": (V4, OWN, ()),
    "[::]": (V6, "::", (DUAL,)),
    "[::] only": (V6, "::", (ONLY,)),
    "[::1]": (V6, "::1", ()),
    "[::ffff:127.0.0.1]": (V6, "::ffff:127.0.0.1", ()),
    "[::ffff:OWN]": (V6, "::ffff:" + OWN, ()),
}
DIALLED = ((V4, "127.0.0.1"), (V4, "127.0.0.2"), (V4, OWN), (V6, "::1"), (V6, "::ffff:127.0.0.1"), (V6, "::ffff:" + OWN))


def opened(end, kind, options, listens):
    """A socket bound there, or the errno's name."""
    family, address, own = ENDS[end]
    s = socket.socket(family, kind)
    for option in (*own, *options):
        s.setsockopt(*option)
    error = told(s.bind, (address, port()))
    if error == "ok" and listens and kind == socket.SOCK_STREAM:
        error = told(s.listen)
    return s if error == "ok" else error


def reached(kind, ends):
    """Which of the sockets a dial to each address comes to."""
    found = []
    for family, address in DIALLED:
        with socket.socket(family, kind) as c:
            c.setblocking(False)
            c.connect_ex((address, port()))
            if kind == socket.SOCK_DGRAM:
                told(c.send, b"x")
            who = "-"
            for number, s in enumerate(ends):
                if ready(s, select.POLLIN, 0):
                    who = str(number)
                    s.accept()[0].close() if kind == socket.SOCK_STREAM else s.recv(9)
            found.append(who)
    return "".join(found)


def every_pair(kind, options, listens=True):
    for one, two in itertools.product(ENDS, ENDS):
        first = opened(one, kind, options, listens)
        assert isinstance(first, socket.socket), first
        second = opened(two, kind, options, listens)
        if isinstance(second, str):
            say(one, "+", two, second)
        else:
            say(one, "+", two, reached(kind, (first, second)) if listens else "ok")
            second.close()
        first.close()


@case
def tcp_pairs() -> None:
    every_pair(socket.SOCK_STREAM, (REUSEADDR,))


@case
def tcp_pairs_bound() -> None:
    every_pair(socket.SOCK_STREAM, (), listens=False)


@case
def tcp_pairs_reuseaddr_bound() -> None:
    every_pair(socket.SOCK_STREAM, (REUSEADDR,), listens=False)


@case
def tcp_pairs_reuseport() -> None:
    every_pair(socket.SOCK_STREAM, (REUSEADDR, REUSEPORT), listens=False)


@case
def udp_pairs() -> None:
    every_pair(socket.SOCK_DGRAM, ())


@case
def udp_pairs_reuseaddr() -> None:
    every_pair(socket.SOCK_DGRAM, (REUSEADDR,), listens=False)


@case
def alone() -> None:
    for kind, end in itertools.product((socket.SOCK_STREAM, socket.SOCK_DGRAM), ENDS):
        s = opened(end, kind, (REUSEADDR,), True)
        say(kind, end, s.getsockname()[:2], reached(kind, (s,)))
        s.close()
