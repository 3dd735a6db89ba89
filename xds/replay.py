"""An Istiod that knows only a recording: serves it step by step over real gRPC, and checks every answer.

`replay_cli` makes a program of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from appswitch.errors import Unavailable
from appswitch.xds.client import DELTA_METHOD, SERVICE, SOTW_METHOD
from appswitch.xds.decode import peek_name
from appswitch.xds.recording import Message, Recording, Step
from appswitch.xds.resources import EDS, RDS, SHORT

ANSWER_TIMEOUT = 10.0
"""Seconds within which a client must acknowledge or reject a response."""

_PARTIAL = frozenset({EDS, RDS})


@dataclass(frozen=True, slots=True)
class Answer:
    """A client's word on one response."""

    type_url: str
    nonce: str
    error: str
    """Empty: acknowledged."""


@dataclass(slots=True)
class _Stream:
    """One client."""

    context: Any
    names: dict[str, set[str]] = field(default_factory=dict)
    sent: dict[str, set[str]] = field(default_factory=dict)
    """Names of EDS and RDS that it was ever sent."""
    pending: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)
    gone: dict[str, set[str]] = field(default_factory=dict)
    """Delta: of types whose first request is not answered, what the client has and is no more."""
    last: dict[str, str] = field(default_factory=dict)
    """The nonce last sent of each type."""
    before: dict[str, str] = field(default_factory=dict)
    """And the one before it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """gRPC takes one write at a time."""


class ReplayServer:
    """Serves one recording of the state of the world; `answers` and `faults` say how its clients behave."""

    _method = SOTW_METHOD
    _decode: Callable[[bytes], Any] = discovery_pb2.DiscoveryRequest.FromString

    def __init__(self, recording: Recording, report: Callable[[str], None] = lambda _: None) -> None:
        """`report` hears one line about everything that happens."""
        self.recording = recording
        self.step = 0
        """Index of the step that is in force."""
        self.answers: list[Answer] = []
        self.faults: list[str] = []
        """Breaches of the protocol."""
        self._report = report
        self._whole: dict[str, Message] = {}
        self._parts: dict[str, dict[str, bytes]] = {EDS: {}, RDS: {}}
        self._version = ""
        self._serial = 0
        self._streams: list[_Stream] = []
        self._pushing = False
        self._moved = asyncio.Event()
        self._server: Any = None
        self._port = 0
        for message in recording.steps[0].messages:
            self._take(message)

    async def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1; returns the port.  Raises Unavailable if it is taken."""
        handlers = {self._method: grpc.stream_stream_rpc_method_handler(self._serve)}
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self._port = server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            raise Unavailable(f"port {port} on 127.0.0.1 cannot be listened on: {error}") from error
        await server.start()
        self._server = server
        return self._port

    async def stop(self) -> None:
        """End every stream and the server; `start` brings it back."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
        self._streams.clear()

    async def wait_for_client(self, timeout: float = ANSWER_TIMEOUT) -> None:
        """Until a client has acknowledged all it was sent.  Raises TimeoutError."""
        await self.wait_for(lambda: bool(self._streams) and self.settled(), timeout)

    async def wait_for(self, condition: Callable[[], bool], timeout: float = ANSWER_TIMEOUT) -> None:
        """Until `condition()`, looked at after each request of a client.  Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    def settled(self) -> bool:
        """Whether every client has every type, and has answered all."""
        return all(
            not stream.pending and set(SHORT) - _PARTIAL <= set(stream.names) and not self._missing(stream)
            for stream in self._streams
        )

    async def advance(self) -> Step | None:
        """The next step, pushed to all clients; None after the last.  A reconnect step ends all streams."""
        if self.step + 1 >= len(self.recording.steps):
            return None
        self.step += 1
        step = self.recording.steps[self.step]
        if step.reconnects:
            port = self._port
            await self.stop()
            for message in step.messages:
                self._take(message)
            await self.start(port)
            return step
        self._pushing = True
        try:
            for message in step.messages:
                self._take(message)
                for stream in list(self._streams):
                    await self._push(stream, message)
        finally:
            self._pushing = False
        for stream in list(self._streams):
            await self._complete(stream)
        return step

    # -- state

    def _take(self, message: Message) -> None:
        url = message.response.type_url
        self._version = message.response.version
        if url in _PARTIAL:
            self._parts[url].update((peek_name(raw.value), raw.value) for raw in message.response.resources)
        else:
            self._whole[url] = message

    def _partial(self, url: str, names: set[str]) -> tuple[bytes, str]:
        """A response with some of the named resources, and its nonce."""
        self._serial += 1
        response = discovery_pb2.DiscoveryResponse(
            type_url=url, version_info=self._version, nonce=f"{self._version}-replay-{self._serial}"
        )
        for name in sorted(names):
            if name in self._parts[url]:
                response.resources.add(type_url=url, value=self._parts[url][name])
        return response.SerializeToString(), response.nonce

    def _missing(self, stream: _Stream) -> dict[str, set[str]]:
        missing = {}
        for url in _PARTIAL & set(stream.names):
            names = (stream.names[url] & set(self._parts[url])) - stream.sent.get(url, set())
            if names:
                missing[url] = names
        return missing

    # -- streams

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream = _Stream(context)
        self._streams.append(stream)
        try:
            first = True
            async for data in requests:
                request = type(self)._decode(data)
                if first and len(request.node.id.split("~")) != 4:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "missing parts in the service node")
                first = False
                if request.type_url not in SHORT:
                    self.faults.append(f"request for the unknown type {request.type_url!r}")
                    continue
                await self._request(stream, request)
                self._moved.set()
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    async def _request(self, stream: _Stream, request: Any) -> None:
        url = request.type_url
        known = stream.names.get(url)
        stream.names[url] = set(request.resource_names)
        if request.response_nonce:
            self._answered(stream, request)
        if known is None:
            if url in _PARTIAL:
                await self._complete(stream)
            elif url in self._whole:
                message = self._whole[url]
                await self._send(stream, url, message.data, message.response.nonce)
        elif url in _PARTIAL and not self._pushing:
            stream.sent[url] = stream.sent.get(url, set()) & stream.names[url]
            await self._complete(stream)

    def _answered(self, stream: _Stream, request: Any) -> None:
        future = stream.pending.pop(request.response_nonce, None)
        if future is None:
            last = stream.last.get(request.type_url)
            # A change of subscription carries the last nonce again; while a response is on its way, that
            # is for the client still the one before.
            crossed = last in stream.pending and request.response_nonce == stream.before.get(request.type_url)
            if request.response_nonce != last and not crossed:
                self.faults.append(f"{SHORT[request.type_url]}: a nonce that was never sent, or is old")
            return
        error = request.error_detail.message if request.HasField("error_detail") else ""
        answer = Answer(request.type_url, request.response_nonce, error)
        self.answers.append(answer)
        self._report(f"{SHORT[answer.type_url]} {'rejected: ' + error if error else 'accepted'}")
        if not future.done():
            future.set_result(answer)

    async def _send(self, stream: _Stream, url: str, data: bytes, nonce: str) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        stream.pending[nonce] = future
        stream.before[url], stream.last[url] = stream.last.get(url, ""), nonce
        async with stream.lock:
            await stream.context.write(data)
        return future

    async def _complete(self, stream: _Stream) -> None:
        """Send what the client asked for and has not got."""
        for url, names in self._missing(stream).items():
            stream.sent.setdefault(url, set()).update(names)
            await self._send(stream, url, *self._partial(url, names))

    async def _push(self, stream: _Stream, message: Message) -> None:
        url = message.response.type_url
        if url in _PARTIAL:
            names = {peek_name(raw.value) for raw in message.response.resources}
            stream.sent.setdefault(url, set()).update(names & stream.names.get(url, set()))
        await self._deliver(stream, message)

    async def _deliver(self, stream: _Stream, message: Message) -> None:
        """As it was recorded; until it is answered."""
        url = message.response.type_url
        future = await self._send(stream, url, message.data, message.response.nonce)
        try:
            await asyncio.wait_for(future, ANSWER_TIMEOUT)
        except TimeoutError:
            self.faults.append(f"{SHORT[url]}: no answer within {ANSWER_TIMEOUT:g} s")


class DeltaReplayServer(ReplayServer):
    """Serves one recording of the incremental dialogue."""

    _method = DELTA_METHOD
    _decode = discovery_pb2.DeltaDiscoveryRequest.FromString

    def _take(self, message: Message) -> None:
        self._version = message.response.version
        parts = self._parts.setdefault(message.response.type_url, {})
        parts.update((raw.name, raw.value) for raw in message.response.resources)
        for name in message.response.removed:
            parts.pop(name, None)

    async def _request(self, stream: _Stream, request: Any) -> None:
        url, subscribe = request.type_url, set(request.resource_names_subscribe)
        changes = subscribe | set(request.resource_names_unsubscribe)
        if request.response_nonce:
            if changes:
                self.faults.append(f"{SHORT[url]}: a subscription rides on an answer")
            self._answered(stream, request)
            return
        first = url not in stream.names
        names = stream.names.setdefault(url, set())
        if not first and not changes:
            self.faults.append(f"{SHORT[url]}: a request that asks for nothing")
        if set(request.resource_names_unsubscribe) - names:
            self.faults.append(f"{SHORT[url]}: the end of a subscription that is none")
        names -= set(request.resource_names_unsubscribe)
        names |= subscribe
        stream.sent[url] = stream.sent.get(url, set()) & names - subscribe
        if first:  # Istiod answers the first request of a type even where there is nothing
            stream.gone[url] = set(request.initial_resource_versions) - set(self._parts.get(url, {}))
        if not self._pushing:
            await self._complete(stream)

    def _unsent(self, stream: _Stream, url: str) -> set[str]:
        """What there is, the client wants, and has not got."""
        there = set(self._parts.get(url, {}))
        wanted = there & stream.names.get(url, set()) if url in _PARTIAL else there
        return wanted - stream.sent.get(url, set())

    async def _update(self, stream: _Stream, url: str, names: set[str], gone: set[str]) -> None:
        self._serial += 1
        response = discovery_pb2.DeltaDiscoveryResponse(
            type_url=url,
            system_version_info=self._version,
            nonce=f"{self._version}-replay-{self._serial}",
            removed_resources=sorted(gone),
        )
        for name in sorted(names):
            response.resources.add(name=name).resource.MergeFrom(
                any_pb2.Any(type_url=url, value=self._parts[url][name])
            )
        stream.sent.setdefault(url, set()).update(names)
        await self._send(stream, url, response.SerializeToString(), response.nonce)

    def _missing(self, stream: _Stream) -> dict[str, set[str]]:
        missing = {url: self._unsent(stream, url) for url in stream.names}
        return {url: names for url, names in missing.items() if names or url in stream.gone}

    async def _complete(self, stream: _Stream) -> None:
        for url, names in self._missing(stream).items():
            gone = stream.gone.pop(url, set()) - set(self._parts.get(url, {}))
            await self._update(stream, url, names, gone)

    async def _push(self, stream: _Stream, message: Message) -> None:
        sent = stream.sent.setdefault(message.response.type_url, set())
        sent.update(raw.name for raw in message.response.resources)
        sent.difference_update(message.response.removed)
        await self._deliver(stream, message)


def server(recording: Recording, report: Callable[[str], None] = lambda _: None) -> ReplayServer:
    """The one that speaks the recording's dialogue."""
    return (DeltaReplayServer if recording.delta else ReplayServer)(recording, report)
