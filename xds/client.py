"""The shell around the ADS dialogues: one gRPC stream after the other, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

# gRPC reads it once, at import: by default its C core writes to standard error about each lost stream.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
import grpc
import grpc.aio

from appswitch.errors import InvalidInput, Unavailable
from appswitch.xds.ads import (
    Command,
    Config,
    Connected,
    Disconnected,
    Elapsed,
    Event,
    Ignored,
    Publish,
    Received,
    Rejected,
    Send,
    SendDelta,
    Withheld,
)
from appswitch.xds.backoff import Backoff
from appswitch.xds.decode import decode_delta_response, decode_response
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.requests import NodeInfo, encode
from appswitch.xds.sotw import Sotw
from appswitch.xds.transport import Transport

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
SOTW_METHOD = "StreamAggregatedResources"
DELTA_METHOD = "DeltaAggregatedResources"

OPTIONS = (
    ("grpc.max_receive_message_length", 256 << 20),  # the default of 4 MiB fails on a 9 MB push
    ("grpc.keepalive_time_ms", 30_000),  # Istiod answers GOAWAY below 15 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the old one's backoff
    ("grpc.enable_http_proxy", 0),
)
OPEN_TIMEOUT = 5.0
"""Seconds until a connection must be up."""


class Listener(Protocol):
    """Hears what happens to the streams."""

    async def publish(self, config: Config) -> None:
        """A new configuration; the response that brought it is acknowledged when this returns."""

    def connected(self) -> None:
        """A stream is open."""

    def disconnected(self, reason: str, delay: float) -> None:
        """It ended; the next one is tried after `delay` seconds."""

    def rejected(self, rejected: Rejected | Ignored | Withheld) -> None:
        """Something of a response was not taken, or is not sent."""

    def fell_back(self, reason: str) -> None:
        """The server does not know the incremental dialogue; the other one goes on."""


LOST_WORDS = "Internal error from Core"
"""What grpc.aio says of a call that the server ended as we wrote, whatever the server said."""
LISTEN = 0.5
"""Seconds before each request of a stream on which the server's words shall be heard, until it answers."""


@dataclass(slots=True)
class Client:
    """Keeps one ADS stream alive."""

    transport: Transport
    node: NodeInfo
    listener: Listener
    ads: Dialogue
    """The dialogue to begin with."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
    fall_back: bool = False
    """From the incremental dialogue to the state of the world, where the server does not know the first."""
    clock: Callable[[], float] = time.monotonic
    _outgoing: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    """To the stream that there is, or was last."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One event at a time: a push is taken in a thread."""
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    """Something happened: other timers may run."""

    async def run(self) -> None:
        """Run until cancelled.  What was received stays in force over every outage."""
        await asyncio.gather(self._streams(), self._watch())

    async def _watch(self) -> None:
        """Tell the dialogue when what it waits for is over."""
        while True:
            async with self._turn:
                due = self.ads.held.due()
                self._told.clear()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self.clock())):
                    await self._told.wait()
            except TimeoutError:
                await self._tell(Elapsed)

    async def _tell(self, event: Callable[[float], Event]) -> None:
        """Tell the dialogue of what happened now, and do as it says."""
        async with self._turn:
            # A 9 MB push takes tenths of a second to open: not on the event loop.
            commands = await asyncio.to_thread(lambda: self.ads.handle(event(self.clock())))
            await self._obey(commands)
            self._told.set()

    async def _streams(self) -> None:
        backoff = Backoff(self.uniform)
        wordless = spoke = False
        while True:
            answered = asyncio.Event()
            try:
                reason = await self._stream(answered, slow=wordless)
            except grpc.aio.AioRpcError as error:
                # A server that refuses at once can overtake our next request: grpcio then loses the
                # server's words.  Asked again, once and slowly, it says them.
                if error.details() == LOST_WORDS and not (answered.is_set() or wordless):
                    wordless = True
                    await self._tell(lambda _: Disconnected())
                    continue
                reason = f"{error.code().name}: {error.details()}"
                if advice := self.transport.advice(error.code(), error.details() or "", time.time()):
                    reason += f" ({advice})"
                if error.code() is grpc.StatusCode.UNIMPLEMENTED and self.fall_back and not spoke:
                    # Of something between, such as a gateway without a server, it may not be the truth:
                    # after a stream that worked it is asked again first, and then the dialogues take turns.
                    if isinstance(self.ads, Delta):
                        wordless = False
                        self.ads = Sotw(self.ads.held)
                        self.listener.fell_back(reason)
                        continue
                    self.ads = Delta(self.ads.held)
            except (InvalidInput, Unavailable) as error:
                reason = str(error)
            wordless = False
            spoke = answered.is_set()
            await self._tell(lambda _: Disconnected())
            delay = backoff.after(answered.is_set())
            self.listener.disconnected(reason, delay)
            await self.sleep(delay)

    async def _stream(self, answered: asyncio.Event, *, slow: bool) -> str:
        """One stream, to its end; why it ended.  `answered` is set by the first response.

        `slow`: a pause before each request until then.
        """
        metadata = self.transport.metadata()
        async with self.transport.channel(OPTIONS) as channel:
            ready = await self._open(channel)
            self._outgoing = asyncio.Queue()
            method = DELTA_METHOD if isinstance(self.ads, Delta) else SOTW_METHOD
            call = channel.stream_stream(f"/{SERVICE}/{method}")(
                _drain(self._outgoing, answered, slow=slow), metadata=metadata
            )
            if ready:  # else the call itself fails at once, and says why better than we could
                self.listener.connected()
            await self._tell(Connected)
            async for data in call:
                answered.set()
                await self._tell(partial(self._received, data))
            return "the server ended the stream"

    async def _open(self, channel: grpc.aio.Channel) -> bool:
        """Wait until the connection is up, or has failed (False).  Raises Unavailable if neither happens."""
        ends = {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE}
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                while (state := channel.get_state(try_to_connect=True)) not in ends:
                    await channel.wait_for_state_change(state)
        except TimeoutError as error:
            raise Unavailable(
                f"no connection to {self.transport.target} within {OPEN_TIMEOUT:g} s"
            ) from error
        return bool(state is grpc.ChannelConnectivity.READY)

    def _received(self, data: Any, now: float) -> Received:
        decode = decode_delta_response if isinstance(self.ads, Delta) else decode_response
        return Received(decode(data), now)

    async def _obey(self, commands: list[Command]) -> None:
        """Publish first: an ACK says that a configuration is in force, and holds back the next push."""
        for command in commands:
            if isinstance(command, Publish):
                await self.listener.publish(command.config)
        for command in commands:
            match command:
                case Send() | SendDelta():
                    self._outgoing.put_nowait(encode(command, self.node))
                case Rejected() | Ignored() | Withheld():
                    self.listener.rejected(command)
                case Publish():
                    pass


async def _drain(
    outgoing: asyncio.Queue[bytes], answered: asyncio.Event, *, slow: bool
) -> AsyncIterator[bytes]:
    while True:
        data = await outgoing.get()
        if slow and not answered.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), LISTEN)
        yield data
