"""The gRPC server of one script, in plaintext on 127.0.0.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from appswitch.errors import InvalidInput, Unavailable
from appswitch.xds.client import DELTA_METHOD, SERVICE, SOTW_METHOD
from appswitch.xds.conformance.mesh import Mesh, View
from appswitch.xds.conformance.script import Push
from appswitch.xds.conformance.transcript import Ended, Mode, Opened, Response, Transcript
from appswitch.xds.conformance.wire import read, write
from appswitch.xds.resources import SHORT, RawResource

# isort: split
# After client.py, which quiets gRPC's C core.
import grpc
import grpc.aio

METHODS = {Mode.SOTW: SOTW_METHOD, Mode.DELTA: DELTA_METHOD}


@dataclass(slots=True)
class _Stream:
    number: int
    context: Any
    limit: asyncio.Timeout
    """Its deadline is moved to now to end the stream."""
    view: View = field(default_factory=View)
    status: str = ""
    """Not empty: the server ends it with this status."""
    words: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """gRPC takes one write at a time."""


class Server:
    """Answers from its mesh, but for the types on hold, and sends what the script says."""

    def __init__(self, mode: Mode, resources: tuple[RawResource, ...]) -> None:
        self.mode = mode
        self.transcript = Transcript(mode)
        self.mesh = Mesh(mode, resources)
        self.hold: tuple[str, ...] = ()
        self.refuse = 0
        """So many streams are ended before any response…"""
        self.status = "UNAVAILABLE"
        self.words = ""
        """…with this status and these words."""
        self.other_mode = False
        """The client tried the other dialogue."""
        self.moved = asyncio.Event()
        """Set by every new entry of the transcript."""
        self.port = 0
        self._serial = 0
        self._stream: _Stream | None = None
        self._server: Any = None

    async def start(self) -> None:
        """Listen; always on the same port.  Raises Unavailable."""
        other = Mode.DELTA if self.mode is Mode.SOTW else Mode.SOTW
        handlers = {
            METHODS[self.mode]: grpc.stream_stream_rpc_method_handler(self._serve),
            METHODS[other]: grpc.stream_stream_rpc_method_handler(self._refuse),
        }
        # The port stays ours while nobody shall listen on it: it is bound again within one run.
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1)))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        except RuntimeError as error:
            raise Unavailable(f"port {self.port} on 127.0.0.1 cannot be listened on: {error}") from error
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End every stream, and listen no more."""
        if self._server is not None:
            if self._stream is not None:
                self._stream.status = "UNAVAILABLE"
            await self._server.stop(0)
            self._server = None

    def end(self, status: str, words: str) -> None:
        """End the last stream."""
        if (stream := self._stream) is not None:
            stream.status, stream.words = status, words
            stream.limit.reschedule(asyncio.get_running_loop().time())

    async def push(self, push: Push) -> None:
        """Send it on the last stream, and remember it.  Nothing is sent where there is no stream."""
        self.mesh.take(push)
        if push.later or self._stream is None:
            return
        self.mesh.sent(self._stream.view, push)
        await self._send(self._stream, push, scripted=True)

    async def _send(self, stream: _Stream, push: Push, *, scripted: bool) -> None:
        self._serial += 1
        nonce = f"{SHORT.get(push.url, 'other')}-{self._serial}"
        self._note(Response(stream.number, self._now(), push.url, push.version, nonce, scripted))
        data = await asyncio.to_thread(write, push, self.mode, nonce)
        async with stream.lock:
            if stream.status:
                return
            try:
                await stream.context.write(data)
            except grpc.aio.BaseError:
                pass  # the client has gone; the transcript says so

    async def _refuse(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.other_mode = True
        self.moved.set()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this case is about the other dialogue")
        async for _ in requests:  # never: abort raises
            pass

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        number = self.transcript.stream + 1
        stream = _Stream(number, context, asyncio.timeout(None))
        self._note(Opened(number, self._now()))
        if self.refuse > 0:
            self.refuse -= 1
            stream.status, stream.words = self.status, self.words
        else:
            self._stream = stream
        try:
            if not stream.status:
                async with stream.limit:
                    async for data in requests:
                        await self._request(stream, data)
        except TimeoutError:
            pass
        finally:
            self._note(Ended(number, self._now(), bool(stream.status)))
            if self._stream is stream:
                self._stream = None
        if stream.status not in ("", "OK"):
            await context.abort(grpc.StatusCode[stream.status], stream.words)

    async def _request(self, stream: _Stream, data: bytes) -> None:
        try:
            request = read(data, self.mode, stream.number, self._now())
        except InvalidInput as error:
            self.end("INVALID_ARGUMENT", str(error))
            return
        self._note(request)
        if request.url not in self.hold and (push := self.mesh.answer(stream.view, request)) is not None:
            await self._send(stream, push, scripted=False)

    def _note(self, entry: Any) -> None:
        self.transcript.entries.append(entry)
        self.moved.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
