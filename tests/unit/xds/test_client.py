"""The gRPC shell against real servers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from appswitch.agent.tasks import spawn
from appswitch.errors import InvalidInput, Unavailable
from appswitch.xds.ads import Config, Ignored, Rejected, Withheld
from appswitch.xds.client import LOST_WORDS, SERVICE, SOTW_METHOD, Client
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.make import cluster
from appswitch.xds.recording import Message, Recording, Step, load
from appswitch.xds.replay import ReplayServer, server
from appswitch.xds.requests import NodeInfo
from appswitch.xds.resources import CDS, EDS
from appswitch.xds.sotw import Sotw
from appswitch.xds.timers import NEVER_CAME, TOO_OLD
from appswitch.xds.translate import Translator
from appswitch.xds.transport import Transport

BOOKINFO = Path(__file__).resolve().parents[3] / "istio-samples" / "bookinfo" / "recording"
BOOKINFO_DELTA = Path(__file__).resolve().parents[2] / "fixtures" / "istiod" / "bookinfo-delta"
NODE = NodeInfo("sidecar~10.244.9.1~client-1.default~default.svc.cluster.local")
PATIENCE = 20.0


@dataclass
class Ears:
    """Remembers what the client says."""

    configs: list[Config] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    rejections: list[Rejected | Ignored | Withheld] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    streams: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    open: asyncio.Event = field(default_factory=asyncio.Event)
    """What is published is in force once this is set."""

    def __post_init__(self) -> None:
        self.open.set()

    async def publish(self, config: Config) -> None:
        self.configs.append(config)
        self.moved.set()
        await self.open.wait()

    def connected(self) -> None:
        self.streams += 1
        self.moved.set()

    def disconnected(self, reason: str, delay: float) -> None:
        self.reasons.append(reason)
        self.delays.append(delay)
        self.moved.set()

    def rejected(self, rejected: Rejected | Ignored | Withheld) -> None:
        self.rejections.append(rejected)
        self.moved.set()

    def fell_back(self, reason: str) -> None:
        self.fallbacks.append(reason)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.moved.clear()
                await self.moved.wait()


@contextlib.asynccontextmanager
async def client(port: int, ads: Dialogue | None = None) -> AsyncIterator[Ears]:
    """`ads`: the dialogue to begin with; the client falls back from the incremental one."""
    ears = Ears()

    async def soon(delay: float) -> None:
        await asyncio.sleep(min(delay, 0.05))

    target, dialogue = Transport(f"127.0.0.1:{port}"), ads or Sotw()
    subject = Client(target, NODE, ears, dialogue, soon, lambda _, high: high, fall_back=True)
    task = spawn("client", subject.run())
    try:
        yield ears
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def serving(recording: Recording) -> AsyncIterator[tuple[ReplayServer, int]]:
    made = server(recording)
    try:
        yield made, await made.start()
    finally:
        await made.stop()


def reviews(config: Config) -> set[str]:
    translation = Translator().translate(config)
    row = next(item for item in translation.vservices if item.name.startswith("reviews."))
    return {str(backend.address) for backend in row.backends}


@pytest.mark.parametrize(
    ("folder", "make"),
    [(BOOKINFO, Sotw), (BOOKINFO, Delta), (BOOKINFO_DELTA, Delta)],
    ids=["sotw", "back", "delta"],
)
def test_the_whole_recording_over_grpc(folder: Path, make: Callable[[], Dialogue]) -> None:
    async def scenario() -> None:
        async with serving(load(folder)) as (server, port), client(port, make()) as ears:
            await server.wait_for_client()
            assert reviews(ears.configs[-1]) == {"10.244.1.31", "10.244.1.32"}
            assert bool(ears.fallbacks) == (folder is BOOKINFO and make is Delta)
            while (step := await server.advance()) is not None:
                await server.wait_for_client()
                if step.name == "scale-reviews-v3":
                    assert reviews(ears.configs[-1]) == {"10.244.1.33", "10.244.1.34"}
            await ears.until(lambda: not any("ratings" in name for name in ears.configs[-1].clusters))
            # where grpc loses the server's words, it is asked again before the client falls back
            assert 3 <= ears.streams - len(ears.fallbacks) <= 3 + len(ears.fallbacks)
        assert server.faults == []
        assert not [answer for answer in server.answers if answer.error]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("folder", "make"), [(BOOKINFO, Sotw), (BOOKINFO_DELTA, Delta)], ids=["sotw", "delta"]
)
def test_server_away_for_a_while_and_back(
    folder: Path, make: Callable[[], Dialogue]
) -> None:  # C40, C42, C43
    async def scenario() -> None:
        async with serving(load(folder)) as (server, port), client(port, make()) as ears:
            await server.wait_for_client()
            before = ears.configs[-1]
            await server.stop()
            await ears.until(lambda: len(ears.reasons) >= 4)
            assert ears.delays[0] <= 0.1  # it had answered
            assert ears.delays[1:4] == [0.5, 1.0, 2.0]
            assert ears.configs[-1] is before  # the last good one stays
            server.step = 0
            assert await server.start(port) == port
            await server.wait_for_client()
            await server.advance()
            await ears.until(lambda: reviews(ears.configs[-1]) == {"10.244.1.33"})

    asyncio.run(scenario())


def small(*responses: Any) -> Recording:
    messages = []
    for response in responses:
        data = response.SerializeToString()
        from appswitch.xds.decode import decode_response

        messages.append(Message(data, decode_response(data)))
    return Recording("small", (Step("start", False, tuple(messages)),))


def clusters(count: int, version: str = "1", padding: int = 0) -> Any:
    message = discovery_pb2.DiscoveryResponse(type_url=CDS, version_info=version, nonce=f"n{version}")
    for number in range(count):
        message.resources.add(
            type_url=CDS, value=cluster(f"c{number}", alt_stat_name="x" * padding, type=0).value
        )
    return message


def test_a_push_of_ten_megabytes() -> None:  # C50
    async def scenario() -> None:
        async with serving(small(clusters(2000, padding=5000))) as (_, port), client(port) as ears:
            await ears.until(lambda: bool(ears.configs) and len(ears.configs[-1].clusters) == 2000)

    asyncio.run(scenario())


def test_a_server_that_no_longer_knows_delta() -> None:
    """A downgrade: asked once more, then the other dialogue goes on with what there is."""

    async def scenario() -> None:
        async with serving(load(BOOKINFO_DELTA)) as (newer, port), client(port, Delta()) as ears:
            await newer.wait_for_client()
            before = ears.configs[-1]
            await newer.stop()
            older = server(load(BOOKINFO))
            try:
                assert await older.start(port) == port
                await older.wait_for_client()
                assert older.faults == [] and len(ears.fallbacks) == 1
                assert set(ears.configs[-1].clusters) == set(before.clusters)
            finally:
                await older.stop()

    asyncio.run(scenario())


def test_a_server_without_either_dialogue() -> None:
    """Both are tried, by turns; where neither is known it is a failure like any other."""

    async def scenario() -> None:
        other = grpc.aio.server()
        port = other.add_insecure_port("127.0.0.1:0")
        await other.start()
        try:
            async with client(port, Delta()) as ears:
                await ears.until(lambda: len(ears.reasons) >= 2)
                assert len(ears.fallbacks) >= 2
                assert all(reason.startswith("UNIMPLEMENTED: ") for reason in ears.fallbacks + ears.reasons)
        finally:
            await other.stop(0)

    asyncio.run(scenario())


def test_a_corrupt_resource_is_rejected_on_the_wire() -> None:  # C06
    async def scenario() -> None:
        message = clusters(3)
        message.resources[1].value = message.resources[1].value[:-1]
        async with serving(small(message)) as (server, port), client(port) as ears:
            await ears.until(lambda: bool(ears.configs and ears.rejections))
            await server.wait_for(lambda: any(answer.error for answer in server.answers))
            assert set(ears.configs[-1].clusters) == {"c0", "c2"}
            assert [answer.error.split(":")[0] for answer in server.answers if answer.error] == ["c1"]

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def serving_streams(serve: Callable[[AsyncIterator[bytes], Any], Any]) -> AsyncIterator[int]:
    """A server that serves each stream so."""
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {SOTW_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def strange(answer: Callable[[Any], Any]) -> AsyncIterator[int]:
    """A server whose streams do as `answer` says."""

    async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            await answer(context)

    async with serving_streams(serve) as port:
        yield port


def test_bytes_that_are_no_response_end_the_stream_only() -> None:
    async def scenario() -> None:
        async with strange(lambda context: context.write(b"\xff\xff\xff")) as port, client(port) as ears:
            await ears.until(lambda: len(ears.reasons) >= 2)
            assert "discovery response of 3 bytes" in ears.reasons[0]

    asyncio.run(scenario())


def test_c41_a_stream_that_ends_after_an_answer_is_opened_again_at_once() -> None:
    """Istiod ends each after half an hour, by design."""

    async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
        await context.write(clusters(2).SerializeToString())
        async for data in requests:
            if discovery_pb2.DiscoveryRequest.FromString(data).response_nonce:
                return  # the last thing that the client says

    async def scenario() -> None:
        async with serving_streams(serve) as port, client(port) as ears:
            await ears.until(lambda: len(ears.delays) >= 4)
            assert set(ears.reasons) == {"the server ended the stream"}
            assert ears.delays[:4] == [0.1] * 4
            assert len(ears.configs) == 1 and len(ears.configs[0].clusters) == 2, "the same is no news"

    asyncio.run(scenario())


def test_c25_c45_the_shell_keeps_the_timers() -> None:
    """What never comes is given up on an open stream; what lives for a time ends without one."""

    async def scenario() -> None:
        message = discovery_pb2.DiscoveryResponse(type_url=CDS, version_info="1", nonce="n")
        soon = {"eds_config": {"ads": {}, "initial_fetch_timeout": {"nanos": 50_000_000}}}
        message.resources.add(type_url=CDS, value=cluster("a", eds_cluster_config=soon).value)
        inner = discovery_pb2.Resource(name="b", ttl={"seconds": 1})
        inner.resource.type_url, inner.resource.value = CDS, cluster("b", type=0).value
        wrapper = f"type.googleapis.com/{inner.DESCRIPTOR.full_name}"
        message.resources.add(type_url=wrapper, value=inner.SerializeToString())
        async with serving(small(message)) as (server, port), client(port) as ears:
            await ears.until(lambda: bool(ears.rejections))
            assert ears.rejections == [Withheld(EDS, (("a", NEVER_CAME),))]
            assert set(ears.configs[-1].assignments) == {"a"}
            await server.stop()
            await ears.until(lambda: len(ears.rejections) == 2)
            assert ears.rejections[1] == Withheld(CDS, (("b", TOO_OLD),))
            assert set(ears.configs[-1].clusters) == {"a"}

    asyncio.run(scenario())


def test_c51_a_push_is_acknowledged_and_the_next_one_read_only_when_it_is_in_force() -> None:
    answers: list[str] = []
    written: list[int] = []
    flooded, answered = asyncio.Event(), asyncio.Event()

    async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
        async def flood() -> None:
            for number in range(100):
                await context.write(clusters(1, f"{number}", padding=1 << 20).SerializeToString())
                written.append(number)
            flooded.set()

        task = spawn("flood", flood())
        async for data in requests:
            request = discovery_pb2.DiscoveryRequest.FromString(data)
            if request.response_nonce:
                answers.append(request.response_nonce)
                answered.set()
        await task

    async def scenario() -> None:
        async with serving_streams(serve) as port, client(port) as ears:
            ears.open.clear()
            await ears.until(lambda: bool(ears.configs))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await flooded.wait()
            assert answers == [], "not in force: not acknowledged"
            assert len(written) < 50, "the server is held back by HTTP/2's window: nothing piles up here"
            ears.open.set()
            async with asyncio.timeout(PATIENCE):
                await flooded.wait()
                while len(answers) < 100:
                    answered.clear()
                    await answered.wait()
            assert answers == [f"n{number}" for number in range(100)]

    asyncio.run(scenario())


def test_a_refusal_is_told_in_the_servers_words() -> None:  # C57
    async def scenario() -> None:
        refuse = grpc.StatusCode.INVALID_ARGUMENT, "missing parts in the service node"
        async with strange(lambda context: context.abort(*refuse)) as port, client(port) as ears:
            await ears.until(lambda: len(ears.delays) >= 3)
            words, _, advice = ears.reasons[0].partition(" (")
            assert words == "INVALID_ARGUMENT: missing parts in the service node"
            assert advice == "see --istio-node-id, --istio-meta and variables ISTIO_META_*)"
            assert ears.delays[:3] == [0.5, 1.0, 2.0]

    asyncio.run(scenario())


def test_c44_nobody_there() -> None:
    async def scenario() -> None:
        async with strange(lambda _: None) as port:
            pass
        async with client(port) as ears:
            await ears.until(lambda: len(ears.reasons) >= 1)
            assert ears.reasons[0].startswith("UNAVAILABLE: ")
            assert f"127.0.0.1:{port}" in ears.reasons[0]
            assert not ears.configs
            assert not ears.streams

    asyncio.run(scenario())


def test_replay_on_a_taken_port() -> None:
    async def scenario() -> None:
        async with serving(load(BOOKINFO)) as (_, port):
            with pytest.raises(Unavailable, match=str(port)):
                await ReplayServer(load(BOOKINFO)).start(port)

    asyncio.run(scenario())


def test_recordings_must_exist() -> None:
    with pytest.raises(InvalidInput):
        load(Path("/nonexistent"))


def test_words_that_grpc_lost_are_asked_for_again_once() -> None:
    tries: list[str] = []

    class Losing(Client):
        async def _stream(self, answered: asyncio.Event, *, slow: bool) -> str:
            tries.append("slowly" if slow else "at once")
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details=LOST_WORDS)

    async def scenario() -> None:
        ears = Ears()
        losing = Losing(
            Transport("127.0.0.1:1"), NODE, ears, Sotw(), lambda _: asyncio.sleep(0.01), lambda _, high: high
        )
        task = spawn("client", losing.run())
        try:
            await ears.until(lambda: bool(ears.reasons))
            assert ears.reasons == [f"INTERNAL: {LOST_WORDS}"] and ears.delays == [0.5]
            assert tries == ["at once", "slowly"]  # never without a pause for ever
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(scenario())
