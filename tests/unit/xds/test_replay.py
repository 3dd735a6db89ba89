"""The replaying server: that it sees a client's faults, and the program around it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from appswitch.xds.ads import Send
from appswitch.xds.client import SERVICE, SOTW_METHOD
from appswitch.xds.recording import load
from appswitch.xds.replay import ReplayServer
from appswitch.xds.replay_cli import main
from appswitch.xds.requests import NodeInfo, encode
from appswitch.xds.resources import CDS, LDS

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "istio-samples" / "bookinfo"
NODE = NodeInfo("sidecar~10.244.9.1~client-1.default~default.svc.cluster.local")


def ask(*requests: bytes, answers: int = 0) -> tuple[ReplayServer, str, list[str]]:
    """Send raw requests; the server, the stream's end, and the types that were answered."""

    async def scenario() -> tuple[ReplayServer, str, list[str]]:
        server = ReplayServer(load(SAMPLE / "recording"))
        port = await server.start()
        got: list[str] = []

        async def all_of_them() -> AsyncIterator[bytes]:
            for request in requests:
                yield request

        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(f"/{SERVICE}/{SOTW_METHOD}")(all_of_them())
            async for data in call:
                got.append(discovery_pb2.DiscoveryResponse.FromString(data).type_url)
            code = await call.code()
        await server.stop()
        return server, code.name, got

    return asyncio.run(scenario())


def test_a_nonce_that_was_never_sent_is_a_fault() -> None:
    server, code, got = ask(
        encode(Send(CDS, first=True), NODE), encode(Send(CDS, "1", "invented"), NODE), encode(Send(LDS), NODE)
    )
    assert (code, got) == ("OK", [CDS, LDS])
    assert server.faults == ["cds: a nonce that was never sent, or is old"]


def test_an_unknown_type_is_a_fault() -> None:
    assert ask(encode(Send("x", first=True), NODE))[0].faults == ["request for the unknown type 'x'"]


def test_a_stream_without_node_is_refused_as_istiod_does() -> None:
    async def scenario() -> grpc.aio.AioRpcError:
        server = ReplayServer(load(SAMPLE / "recording"))
        port = await server.start()

        async def one() -> AsyncIterator[bytes]:
            yield encode(Send(CDS), NODE)

        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                async for _ in channel.stream_stream(f"/{SERVICE}/{SOTW_METHOD}")(one()):
                    pass
        except grpc.aio.AioRpcError as error:
            return error
        finally:
            await server.stop()
        raise AssertionError("the stream was not refused")

    error = asyncio.run(scenario())
    assert (error.code().name, error.details()) == ("INVALID_ARGUMENT", "missing parts in the service node")


def test_list_says_which_pods_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"], SAMPLE / "recording") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "start (ALLOW_ANY)"
    assert lines[6].split() == [
        *("reviews.default.svc.cluster.local:9080", "10.96.1.3:9080", "->"),
        *("10.244.1.31:9080", "(80),", "10.244.1.32:9080", "(20)"),
    ]
    assert main(["--json"], SAMPLE / "recording") == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in steps][:2] == ["start", "shift-reviews-to-v3"]
    assert steps[0]["names"]["reviews.default.svc.cluster.local"] == ["10.96.1.3"]


def test_not_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nonexistent"]) == 65
    assert capsys.readouterr().err.startswith("replay: recording /nonexistent: ")


class Lines:
    """Lines of a pipe, each awaited with a deadline."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._rest = pipe, b""

    def next(self, patience: float = 30.0) -> str:
        deadline = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError("nothing was said in time")
            self._rest += os.read(self._pipe.fileno(), 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def test_play_goes_on_by_line_by_name_and_by_signal() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", SAMPLE / "play.py", "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = Lines(process.stdout)
    try:
        assert lines.next().endswith("; step start")
        process.stdin.write(b"\n")
        assert lines.next() == "step shift-reviews-to-v3: 3 pushes"
        process.send_signal(signal.SIGUSR1)
        assert lines.next() == "step scale-reviews-v3: 1 pushes"
        process.stdin.write(b"delete-details\n")
        assert lines.next() == "step reviews-v3-first-pod-gone: 1 pushes"
        assert lines.next() == "step delete-details: 5 pushes"
        process.stdin.write(b"start\n")
        assert lines.next().startswith("no step 'start' ahead; there are authorization-allow, ")
        process.stdin.write(b"quit\n")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
