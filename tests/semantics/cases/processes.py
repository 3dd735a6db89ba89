"""Sockets that more than one process, thread or program has."""

# ruff: noqa: E501, F403, F405  (programs of one line a step)
# fmt: off

import array
import os
import socket
import subprocess
import sys
import threading

from stage import *


def child(work) -> None:
    """Forks, and waits for the child; what it says is a line."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    say("child:", os.read(read, 999).decode(), status)
    os.close(read)


class Beside(threading.Thread):
    """Work in another thread, and what came of it."""

    def __init__(self, work) -> None:
        super().__init__()
        self.work = work
        self.start()

    def run(self) -> None:
        self.result = self.work()

    def end(self) -> str:
        """Waits for it."""
        self.join()
        return self.result


def served(sock) -> str:
    """One connection, answered."""
    c, peer = take(sock)
    c.sendall(b"hello")
    return f"{c.getsockname()} {host(peer)} {c.getpeername() == peer}"


def asked(there, family=socket.AF_INET) -> str:
    """One connection, asked."""
    s = tcp(family)
    return f"{dial(s, there)} {get(s)} {s.getpeername()} {s.getsockname()[0]}"


@case
def fork_and_serve() -> None:
    s = listening(("127.0.0.1", port()))
    beside = Beside(lambda: asked(("127.0.0.1", port())))
    child(lambda: served(s))
    say(beside.end())
    s.close()
    say(dial(tcp(), ("127.0.0.1", port())))


@case
def fork_and_ask() -> None:
    s = listening(("127.0.0.1", port()))
    beside = Beside(lambda: served(s))
    child(lambda: asked(("127.0.0.1", port())))
    say(beside.end())


@case
def listener_that_a_child_keeps() -> None:
    s = listening(("127.0.0.1", port()))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    s.close()
    say(dial(tcp(), ("127.0.0.1", port())), told(listening, ("127.0.0.1", port())))
    os.close(read)
    os.close(write)
    os.waitpid(pid, 0)
    say(dial(tcp(), ("127.0.0.1", port())))


@case
def dup_and_close() -> None:
    s = listening(("127.0.0.1", port()))
    t = s.dup()
    s.close()
    say(t.getsockname(), dial(tcp(), ("127.0.0.1", port())))
    u = socket.socket(fileno=os.dup2(t.fileno(), 99))
    t.close()
    say(u.getsockname(), dial(tcp(), ("127.0.0.1", port())))
    u.close()
    say(dial(tcp(), ("127.0.0.1", port())))


PROGRAM = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1])); s.setblocking(True); c, peer = s.accept(); c.sendall(b"from a program"); print(c.getsockname(), peer[0])
"""
ASK = """
import socket, sys
s = socket.socket(); s.connect(("127.0.0.1", int(sys.argv[1]))); print(s.recv(99), s.getpeername()[0], s.getsockname()[0])
"""


@case
def programs_that_inherit() -> None:
    s = listening(("127.0.0.1", port()))
    for how in "fork", "vfork", "posix_spawn":
        arguments = [sys.executable, "-c", PROGRAM, str(s.fileno())]
        if how == "posix_spawn":
            os.set_inheritable(s.fileno(), True)
            read, write = os.pipe()
            pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
            os.close(write)
        else:
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, pass_fds=[s.fileno()], preexec_fn=(lambda: None) if how == "fork" else None)
        c = tcp()
        say(how, dial(c, ("127.0.0.1", port())), get(c))
        if how == "posix_spawn":
            os.waitpid(pid, 0)
            say(os.read(read, 99))
            os.close(read)
        else:
            say(process.communicate()[0], process.returncode)


@case
def programs_that_ask() -> None:
    s = listening(("127.0.0.1", port()))
    for how in "fork", "vfork", "shell":
        arguments = [sys.executable, "-c", ASK, str(port())]
        if how == "shell":
            arguments = ["sh", "-c", 'exec "$@"', "-", *arguments]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, preexec_fn=(lambda: None) if how == "fork" else None)
        c, peer = take(s)
        say(how, host(peer), c.send(b"hello"), c.getsockname())
        say(process.communicate()[0], process.returncode)


@case
def passed_within() -> None:
    """SCM_RIGHTS between processes of one program."""
    one, two = socket.socketpair()
    s = listening(("127.0.0.1", port()))
    c = tcp()
    say(dial(c, ("127.0.0.1", port())))
    a = take(s)[0]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno(), a.fileno()]))]
    pid = os.fork()
    if not pid:
        _, fds, _, _ = socket.recv_fds(two, 9, 2)
        got, other = (made(socket.socket(fileno=number)) for number in fds)
        other.sendall(repr((other.getsockname(), other.getpeername()[0], got.getsockname())).encode())
        taken, _ = take(got)
        taken.sendall(b"taken by another")
        os._exit(0)
    one.sendmsg([b"x"], rights)
    s.close()
    a.close()
    say(get(c))
    d = tcp()
    say(dial(d, ("127.0.0.1", port())), get(d))
    os.waitpid(pid, 0)


@case
class passed_between:
    """A connected socket and an accepted one, handed to the other machine's program: they go on."""

    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        a, _ = take(s)
        link.meet()
        say(get(a), a.send(b"answer"), a.getsockname(), a.getpeername()[0])
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        c = tcp()
        say(dial(c, (SERVER, port())))
        link.meet()
        child(lambda: (c.send(b"question"), get(c), c.getpeername(), c.getsockname()[0]))
        link.meet()


@case
class threads:
    """Each with connections of its own, at once."""

    def server(link: Link) -> None:
        s = listening(("", port()))
        link.meet()
        for _ in range(40):
            c, peer = take(s)
            c.sendall(repr((host(peer), host(c.getsockname()), peer[1] == c.getpeername()[1])).encode())
            c.close()
        link.meet()

    def client(link: Link) -> None:
        link.meet()
        found: list[str] = []

        def work() -> None:
            for _ in range(10):
                s = tcp()
                found.append(f"{dial(s, (SERVER, port()))} {get(s)} {s.getpeername()} {s.getsockname()[0]}")

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        say(len(found), set(found))
        link.meet()


@case
def several_listeners_on_one_port() -> None:
    """SO_REUSEPORT: each gets its part, and what one had when it closed is gone as natively."""
    k = [listening(("127.0.0.1", port()), socket.AF_INET, REUSEPORT) for _ in range(4)]
    say([told(s.getsockname) for s in k])
    clients = [tcp() for _ in range(30)]
    say({dial(c, ("127.0.0.1", port())) for c in clients[:20]})
    got = [0] * 4
    for number, s in enumerate(k):
        s.setblocking(False)
        while True:
            try:
                s.accept()[0].close()
                got[number] += 1
            except BlockingIOError:
                break
    say(sum(got), max(got) < 20)
    for s in k[:3]:
        s.close()
    say({dial(c, ("127.0.0.1", port())) for c in clients[20:29]}, told(listening, ("127.0.0.1", port())))
    k[3].close()
    say(dial(clients[29], ("127.0.0.1", port())))
