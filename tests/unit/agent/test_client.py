"""The command line's client: what it says when the daemon is away, slow, odd or unwilling."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.agent.rest_state import MemoryState, daemon, manual_servers

from appswitch.agent.client import Client
from appswitch.agent.requests import NewPort, NewVService
from appswitch.agent.resources import Health, ServerView, VServiceView
from appswitch.errors import AppSwitchError, Conflict, Denied, Exhausted, InvalidInput, NotFound, Unavailable

REQUEST = NewVService(name="myvsvc", ip="1.1.1.1", backends=["10.0.2.15"], ports=[NewPort(80, 8000)])


@contextmanager
def answering(run_dir: Path, answer: bytes, *, pause: float = 0.0) -> Iterator[None]:
    """A server that sends these bytes to every client, byte by byte with a pause if there is one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(run_dir / "api.sock"))
    listener.listen()

    def work() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(65536)
                    for part in [answer] if not pause else [bytes([byte]) for byte in answer]:
                        client.sendall(part)
                        time.sleep(pause)
                except OSError:
                    continue

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
        (run_dir / "api.sock").unlink()


def test_a_whole_dialogue(tmp_path: Path) -> None:
    state = MemoryState(manual_servers())
    with daemon(state, tmp_path):
        client = Client(tmp_path)
        assert [s.serviceaddr for s in client.get_all("/v1/servers", ServerView)] == ["1.1.1.1:80"] * 2
        assert client.get("/v1/health", Health).cluster == "appswitch"
        assert client.post("/v1/vservices", REQUEST, VServiceView).ports_text == "[{80 8000}]"
        with pytest.raises(Conflict, match="exists already"):
            client.post("/v1/vservices", REQUEST, VServiceView)
        client.delete("/v1/vservices", "myvsvc")
        with pytest.raises(NotFound, match="no vservice 'a/b'"):
            client.delete("/v1/vservices", "a/b")
        state.fault = Exhausted("table keys is full")
        with pytest.raises(Exhausted, match="table keys is full"):
            client.post("/v1/vservices", REQUEST, VServiceView)


def test_no_daemon(tmp_path: Path) -> None:
    message = f"no daemon at {tmp_path}/api.sock \\(start one with: ax daemon\\)"
    with pytest.raises(Unavailable, match=message):
        Client(tmp_path).get("/v1/health", Health)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "api.sock"))
    with pytest.raises(Unavailable, match=message):
        Client(tmp_path).get("/v1/health", Health)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user: needs root")
def test_no_permission(tmp_path: Path) -> None:
    with answering(tmp_path, b""):
        (tmp_path / "api.sock").chmod(0o600)
        for part in (tmp_path, *tmp_path.parents):
            if part.stat().st_uid == 0 and len(part.parts) > 2:
                part.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(Denied, match="permission denied \\(be root or in the group appswitch\\)"):
                Client(tmp_path).get("/v1/health", Health)
        finally:
            os.seteuid(0)


def test_a_run_directory_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="too long"):
        Client(tmp_path / ("x" * 120)).get("/v1/health", Health)


def test_a_silent_daemon(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        with pytest.raises(Unavailable, match=r"did not answer within 0.05 s"):
            Client(tmp_path, 0.05).get("/v1/health", Health)


@pytest.mark.parametrize("body", [b"[" + b" " * 400 + b"]"])
def test_the_deadline_is_for_the_whole_answer(tmp_path: Path, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(tmp_path, head + body, pause=0.005):
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer within"):
            Client(tmp_path, 0.5).get_all("/v1/servers", ServerView)
        assert time.monotonic() - begin < 1.5


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (b"", Unavailable, "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", Unavailable, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", Unavailable, "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", InvalidInput, "another version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff", InvalidInput, "another version"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops", Unavailable, "status 502"),
    ],
)
def test_odd_answers(tmp_path: Path, answer: bytes, error: type[AppSwitchError], message: str) -> None:
    with answering(tmp_path, answer), pytest.raises(error, match=message):
        Client(tmp_path, 2.0).get_all("/v1/servers", ServerView)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]))
def test_any_answer_raises_only_our_errors(tmp_path: Path, noise: bytes, head: bytes) -> None:
    with answering(tmp_path, head + noise):
        try:
            Client(tmp_path, 2.0).get_all("/v1/servers", ServerView)
        except AppSwitchError as error:
            assert str(tmp_path) in str(error)
