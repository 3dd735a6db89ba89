"""The launch dialogue over real sockets: the good one, and everything a launcher can do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeLog

from appswitch.agent.channel import Channel, Peer
from appswitch.agent.hello import Request
from appswitch.agent.launch import MAX_OF_USER, Caller, LaunchServer, Started
from appswitch.errors import Denied, Exhausted
from appswitch.model import App

HELLO = {"version": 1, "command": ["nginx"], "ip": "1.1.1.1"}


class Keeper:
    """Remembers what the server asks of it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.refuse: Exception | None = None

    async def start(self, request: Request, caller: Caller) -> Started:
        if self.refuse is not None:
            raise self.refuse
        os.close(caller.pidfd)
        self.calls.append(("start", request.command, caller.peer.pid, caller.peer.uid))
        app = App(
            id=0xF0000001,
            uid="u",
            app_class=request.app_class,
            ip=request.ip or IPv4Address("10.0.0.1"),
            new_netns=request.new_netns,
            inside=os.fstat(caller.probe).st_ino if caller.probe >= 0 else 0,
        )
        return Started(
            app, "/run/resolv.conf" if request.dns_override else "", (5, 6) if request.user else None
        )

    async def inject(self, app: App, descriptor: int) -> None:
        os.close(descriptor)
        self.calls.append(("inject", app.id))

    def died_early(self, app: App) -> None:
        self.calls.append(("died early", app.id))


class Bench:
    """A server, its keeper, and blocking launchers in threads."""

    def __init__(self, run_dir: Path) -> None:
        self.keeper, self.log = Keeper(), FakeLog()
        self.run_dir = run_dir

    def run(self, dialogue: Callable[[socket.socket], Any], deadline: float = 5.0) -> Any:
        """Run `dialogue` against a fresh server; what it returns."""

        async def main() -> Any:
            server = LaunchServer(self.run_dir, self.keeper, self.log, deadline)
            server.start()
            try:
                return await asyncio.to_thread(self._connected, dialogue)
            finally:
                await server.close()

        return asyncio.run(main())

    def _connected(self, dialogue: Callable[[socket.socket], Any]) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as launcher:
            launcher.settimeout(10)
            launcher.connect(str(self.run_dir / "daemon.sock"))
            result = dialogue(launcher)
            launcher.shutdown(socket.SHUT_WR)
            try:
                while launcher.recv(4096):  # the server has finished with us when it closes
                    pass
            except ConnectionResetError:  # it closed with a message of ours unread
                pass
            return result


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def hello(**fields: Any) -> bytes:
    return json.dumps(HELLO | fields).encode()


def test_a_launch_with_a_namespace(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> tuple[bytes, bytes]:
        launcher.send(hello(user="alice"))
        first = launcher.recv(4096)
        with open(os.devnull) as notify:
            socket.send_fds(launcher, [b"filter"], [notify.fileno()])
        return first, launcher.recv(4096)

    assert bench.run(dialogue) == (
        b"ok\nid=f0000001\nip=1.1.1.1\nresolv=/run/resolv.conf\ninject=1\nuid=5\ngid=6\n",
        b"go\n",
    )
    assert bench.keeper.calls == [("start", ("nginx",), os.getpid(), os.getuid()), ("inject", 0xF0000001)]
    assert bench.log.events == []
    assert (bench.run_dir / "daemon.sock").exists() is False


def test_without_a_namespace_the_reply_is_the_end(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> tuple[bytes, bytes]:
        launcher.send(hello(new_netns=False, dns_override=False))
        return launcher.recv(4096), launcher.recv(4096)

    assert bench.run(dialogue) == (b"ok\nid=f0000001\nip=1.1.1.1\n", b"")
    assert len(bench.keeper.calls) == 1


def test_inside_another_app_there_is_no_descriptor(bench: Bench) -> None:
    """The socket that comes with the hello tells; without one of ours, the trap is another program's."""

    def dialogue(launcher: socket.socket, *probe: int) -> bytes:
        socket.send_fds(launcher, [hello()], probe)
        launcher.recv(4096)
        launcher.send(b"nested")
        return launcher.recv(4096)

    with socket.socket() as probe:
        before = len(os.listdir("/proc/self/fd"))
        assert bench.run(lambda launcher: dialogue(launcher, probe.fileno())) == b"go\n"
        assert len(os.listdir("/proc/self/fd")) == before
    assert b"another program traps" in bench.run(dialogue)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"nonsense", 65, "hello does not decode"),
        (hello(ip="x"), 65, "--ip 'x' is no IPv4 address"),
        (hello(cwd="x" * 70_000), 65, "message of more than 65536 bytes"),
        (hello()[:-9], 65, "hello does not decode"),
    ],
    ids=["nonsense", "bad flag", "oversized", "truncated"],
)
def test_a_bad_hello_is_one_event_and_one_line(bench: Bench, message: bytes, code: int, words: str) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        launcher.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        launcher.send(message)
        return launcher.recv(4096)

    status, code_line, text, end = bench.run(dialogue).decode().split("\n")
    assert (status, code_line, end) == ("error", f"code={code}", "")
    assert words in text
    assert [event.label for event, _ in bench.log.events] == ["launch.malformed"]
    assert bench.keeper.calls == []


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (Exhausted("the table is full"), "error\ncode=75\nmessage=the table is full\n"),
        (Denied("two\nlines"), "error\ncode=77\nmessage=two lines\n"),
        (RuntimeError("bug"), "error\ncode=70\nmessage=internal error; see the daemon's log\n"),
    ],
)
def test_a_refusal_says_why(bench: Bench, error: Exception, answer: str) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        launcher.send(hello())
        return launcher.recv(4096)

    bench.keeper.refuse = error
    assert bench.run(dialogue) == answer.encode()
    assert len(bench.log.events) == 1


def test_a_launcher_that_dies_half_way(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        launcher.send(hello())
        return launcher.recv(4096)  # and then nothing

    assert bench.run(dialogue).startswith(b"ok\n")
    assert bench.keeper.calls[-1] == ("died early", 0xF0000001)


@pytest.mark.parametrize("second", [b"filter", b"nested with fd", b"x" * 300])
def test_a_bad_second_message(bench: Bench, second: bytes) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        launcher.send(hello())
        launcher.recv(4096)
        launcher.send(second)
        return launcher.recv(4096)

    assert b"code=65" in bench.run(dialogue)
    assert [event.label for event, _ in bench.log.events] == ["launch.malformed"]
    assert bench.keeper.calls[-1] == ("died early", 0xF0000001)


def test_a_silent_launcher_has_a_deadline(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        return launcher.recv(4096)

    assert b"code=69" in bench.run(dialogue, deadline=0.05)
    assert [event.label for event, _ in bench.log.events] == ["launch.timeout"]


def test_many_bad_launchers_do_not_hinder_a_good_one(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> bytes:
        others = []
        for count in range(50):
            other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            other.connect(str(bench.run_dir / "daemon.sock"))
            if count % 2:
                other.send(b"\x00\xff")
            others.append(other)
        launcher.send(hello(new_netns=False))
        answer = launcher.recv(4096)
        for other in others:
            other.close()
        return answer

    assert bench.run(dialogue).startswith(b"ok\n")


def test_one_user_keeps_nobody_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Channel.peer
    ordinary = [True] * (MAX_OF_USER + 1)

    def peer(channel: Channel) -> Peer:
        """The first ones are an ordinary user's, whoever runs the test."""
        uid = 1000 if ordinary and ordinary.pop() else 0
        return replace(root(channel), uid=uid)

    def dialogue(launcher: socket.socket) -> bytes:
        others = []
        for _ in range(MAX_OF_USER):  # with the launcher itself, which was first
            other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            other.settimeout(10)
            other.connect(str(bench.run_dir / "daemon.sock"))
            others.append(other)
        refusal = others[-1].recv(4096)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as admin:
            admin.connect(str(bench.run_dir / "daemon.sock"))
            admin.send(hello(new_netns=False))
            assert admin.recv(4096).startswith(b"ok\n")
        for other in others:
            other.close()
        return refusal

    monkeypatch.setattr(Channel, "peer", peer)
    assert bench.run(dialogue).startswith(b"error\ncode=75\nmessage=user 1000 has 64 launches")


def test_no_descriptor_leaks(bench: Bench) -> None:
    def dialogue(launcher: socket.socket) -> None:
        launcher.send(b"bad")
        with open(os.devnull) as file:
            try:
                socket.send_fds(launcher, [b"x"], [file.fileno()])
            except BrokenPipeError:
                pass

    before = len(os.listdir("/proc/self/fd"))
    bench.run(dialogue)
    assert len(os.listdir("/proc/self/fd")) == before
