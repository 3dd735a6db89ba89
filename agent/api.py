"""REST: an aiohttp application over a small `State`, on a Unix socket and, read-only, on TCP.

Changes are only accepted on the Unix socket, whose file mode says who may make them.  Whatever a client
sends ends in an answer of `openapi.py`'s table; an error of ours is reported to `failed` and answered 500.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from appswitch.agent import api_explain, openapi, requests, resource_policies
from appswitch.agent import resources as view
from appswitch.agent.api_errors import hint_for, status_of, word_of
from appswitch.agent.channel import peer_of
from appswitch.agent.resource_backends import BackendRow
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_origin import OriginView
from appswitch.agent.resource_unsupported import UnsupportedView
from appswitch.errors import AppSwitchError, Denied, InvalidInput, NotFound, Unavailable
from appswitch.interceptor.decision import Ages
from appswitch.model import App, Snapshot, VService

BODY_TIMEOUT: Final = 10.0
"""Seconds a client has to send its request's body."""

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Failed = Callable[[str, BaseException], None]


class State(Protocol):
    """What REST shows and changes; the daemon implements it, tests have one in memory."""

    @property
    def cluster(self) -> str:
        """The CLUSTER column."""

    @property
    def driver(self) -> str:
        """The driver in use: `kernel`."""

    def snapshot(self) -> Snapshot:
        """The registry's present state."""

    def sockets(self, snapshot: Snapshot) -> Sequence[view.SocketView]:
        """Listening sockets; see `sockets.read_sockets`.  Blocks: called in a thread."""

    def proxies(self) -> Sequence[view.ProxyView]:
        """Relays of this node's gateways."""

    def drivers(self) -> Sequence[view.DriverView]:
        """See `drivers.probe`."""

    def backends(self, snapshot: Snapshot) -> Sequence[BackendRow]:
        """Every backend and its connections.  Blocks: called in a thread."""

    def failed(self) -> Ages:
        """Backends that failed, for `decide()`."""

    async def bpf(self, seconds: float) -> Sequence[BpfView]:
        """See `bpf.Bpf.views`.  Raises Unsupported."""

    def unsupported(self) -> Sequence[UnsupportedView]:
        """What Istiod asks for and is not done.  Called in a thread."""

    def istio_pages(self, kind: str) -> AsyncIterator[bytes]:
        """Rows of Istio's configuration as JSON without the outermost brackets, some at once.

        Raises Unavailable while the Istio agent's process is away.
        """

    async def istio_origin(self, address: IPv4Address, port: int) -> OriginView | None:
        """Where Istio's decision about a virtual IP and port comes from; None: nowhere.

        Raises Unavailable while the Istio agent's process is away, InvalidInput.
        """

    def health(self) -> view.Health:
        """The daemon's own state."""

    async def create_vservice(self, vservice: VService) -> VService:
        """Publish it; returns it as published.  Raises Conflict, Exhausted, InvalidInput."""

    async def delete_vservice(self, name: str) -> None:
        """Withdraw it.  Raises NotFound, Conflict (it is not the user's)."""

    async def attach_app(self, wanted: requests.Attachment) -> App:
        """See `attach.Attachments`."""

    async def detach_app(self, which: str) -> None:
        """See `attach.Attachments`."""


def application(
    state: State, version: str, *, writable: bool, failed: Failed, executor: Executor | None = None
) -> web.Application:
    """The application for one listener; `failed(request, error)` hears of errors of ours.

    `executor` makes the long answers; None: asyncio's own.
    """
    handlers = _Handlers(state, version, writable, executor)
    middlewares = [_errors(failed)] if writable else [_errors(failed), _read_only]
    app = web.Application(middlewares=middlewares, client_max_size=requests.MAX_BODY)
    for endpoint in openapi.ENDPOINTS:
        handler = handlers.table[endpoint.operation]
        if endpoint.method == "GET":
            app.router.add_get(endpoint.path, handler)  # HEAD too
        else:
            app.router.add_route(endpoint.method, endpoint.path, handler)
    return app


class _Handlers:
    """One method an endpoint; `table` is by operation name."""

    def __init__(self, state: State, version: str, writable: bool, executor: Executor | None) -> None:
        self._executor = executor
        self._state = state
        self._writable = writable
        self._document = msgspec.json.encode(openapi.document(version))
        self.table: dict[str, Handler] = {
            "listApps": self._view(lambda snapshot: view.app_views(snapshot, state.cluster, state.driver)),
            "attachApp": self._attach,
            "detachApp": self._detach,
            "listServers": self._view(lambda snapshot: view.server_views(snapshot, state.cluster)),
            "listSockets": self._view(state.sockets),
            "listBackends": self._view(state.backends),
            "listBpf": self._bpf,
            "listVservices": self._view(view.vservice_views),
            "listPolicies": self._view(resource_policies.views),
            "listUnsupported": self._view(lambda _: state.unsupported()),
            "listClusters": self._of_istio("clusters"),
            "listEndpoints": self._of_istio("endpoints"),
            "listListeners": self._of_istio("listeners"),
            "listRoutes": self._of_istio("routes"),
            "listXds": self._of_istio("xds"),
            "listProxies": self._list(state.proxies),
            "listDrivers": self._list(state.drivers),
            "createVservice": self._create,
            "getVservice": self._get,
            "deleteVservice": self._delete,
            "explain": self._explain,
            "health": self._health,
            "openapi": self._openapi,
        }

    def _view(self, make: Callable[[Snapshot], Sequence[Any]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            _no_query(request)
            snapshot = self._state.snapshot()
            # 10,000 vservices take 0.7 s: in a thread, so that the daemon's other work goes on.
            body = await self._apart(lambda: msgspec.json.encode(make(snapshot)))
            return web.Response(body=body, content_type="application/json")

        return handler

    async def _apart(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    @staticmethod
    def _list(make: Callable[[], Sequence[Any]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            _no_query(request)
            return _json(make())

        return handler

    def _of_istio(self, kind: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            _no_query(request)
            return await _stream(request, self._state.istio_pages(kind))

        return handler

    async def _attach(self, request: web.Request) -> web.Response:
        _root_only(request)
        app = await self._state.attach_app(requests.decode_app(await _body(request)))
        return _json(view.app_view(app, self._state.snapshot(), self._state.cluster, self._state.driver), 201)

    async def _detach(self, request: web.Request) -> web.Response:
        _no_query(request)
        _root_only(request)
        await self._state.detach_app(request.match_info["name"])
        return web.Response(status=204)

    async def _create(self, request: web.Request) -> web.Response:
        wanted = requests.decode_vservice(await _body(request))
        snapshot = self._state.snapshot()
        if wanted.source_ip not in (None, snapshot.node_ip) and wanted.source_ip not in snapshot.local_ips:
            raise InvalidInput(f"source-ip {wanted.source_ip} is not an address of this node")
        made = await self._state.create_vservice(wanted)
        return _json(view.vservice_view(made), 201, {"Location": f"/v1/vservices/{made.name}"})

    async def _get(self, request: web.Request) -> web.Response:
        _no_query(request)
        name = request.match_info["name"]
        for vservice in self._state.snapshot().vservices:
            if vservice.name == name:
                return _json(view.vservice_view(vservice))
        raise NotFound(f"no vservice {name!r} (see: ax get vservices)")

    async def _delete(self, request: web.Request) -> web.Response:
        _no_query(request)
        await self._state.delete_vservice(request.match_info["name"])
        return web.Response(status=204)

    async def _explain(self, request: web.Request) -> web.Response:
        if len(request.query) != len(set(request.query)):
            raise InvalidInput("a query parameter is given twice")
        query = requests.decode_explain(request.query)
        snapshot, failed = self._state.snapshot(), self._state.failed
        found = await self._apart(lambda: api_explain.decided(snapshot, query, failed()))
        origin, unknown = None, ""
        if found.istio:
            address, port = found.destination.address, found.destination.port
            try:
                origin = await self._state.istio_origin(address, port)
                unknown = "" if origin else f"the Istio agent has no {address}:{port} now"
            except (Unavailable, InvalidInput) as error:  # the decision stands without it
                unknown = str(error)
        return _json(await self._apart(lambda: api_explain.explanation(found, origin, unknown)))

    async def _bpf(self, request: web.Request) -> web.Response:
        seconds = requests.decode_seconds(request.query)
        if seconds and not self._writable:  # it makes every BPF program of the machine slower meanwhile
            raise Denied("the TCP port is read-only: seconds= switches statistics on, by the Unix socket")
        return _json(await self._state.bpf(seconds))

    async def _health(self, request: web.Request) -> web.Response:
        _no_query(request)
        return _json(self._state.health())

    async def _openapi(self, request: web.Request) -> web.Response:
        _no_query(request)
        return web.Response(body=self._document, content_type="application/json")


async def _body(request: web.Request) -> bytes:
    """Of a change: JSON, and in time."""
    _no_query(request)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error


def _root_only(request: web.Request) -> None:
    """Whoever attaches takes over others' programs: the group that may create vservices may not."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or peer_of(sock).uid != 0:
        raise Denied("only root may attach and detach")


def _no_query(request: web.Request) -> None:
    if request.query:
        raise InvalidInput(f"unknown query parameter {next(iter(request.query))!r}: there are none here")


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(answer)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _stream(request: web.Request, pages: AsyncIterator[bytes]) -> web.StreamResponse:
    """A JSON array, of which never more than a page is held here."""
    some = await anext(pages, b"")  # what this raises is still answered as an error
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if request.method == "HEAD":  # aiohttp would send a body here
        return response
    await response.write(b"[" + some)
    try:
        async for more in pages:
            await response.write(b"," + more if some and more else more)
            some = some or more
    except AppSwitchError as error:  # half of it has gone: only the connection's end can say so
        raise ConnectionResetError(str(error)) from error
    await response.write_eof(b"]")
    return response


def _error(
    status: int, word: str, message: str, hint: str, headers: dict[str, str] | None = None
) -> web.Response:
    return _json(view.Error(error=word, message=message, hint=hint), status, headers)


def _errors(failed: Failed) -> Any:
    """Outermost: every error becomes an answer of the uniform shape."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except AppSwitchError as error:
            return _error(status_of(error), word_of(error), str(error), hint_for(request.method, error))
        except web.HTTPException as error:
            word, message, hint = _http_error(error, request.method, request.path)
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return _error(error.status, word, message, hint, allow)
        except ConnectionError:  # the client went away; aiohttp closes
            raise
        except Exception as error:  # noqa: BLE001 - outer edge of a request: the server goes on
            failed(f"{request.method} {request.path}", error)
            return _error(500, "internal", "a fault of the daemon; its log has the details", "")

    return middleware


def _http_error(error: web.HTTPException, method: str, path: str) -> tuple[str, str, str]:
    """(word, message, hint) for what aiohttp itself refuses."""
    match error.status:
        case 404:
            return "not-found", f"there is no {path}", "/v1/openapi.json lists all paths"
        case 405:
            return "method", f"{method} is not possible on {path}", "/v1/openapi.json lists all methods"
        case 408:
            return "timeout", "the request's body did not arrive in time", ""
        case 413:
            return "too-large", f"the body is larger than {requests.MAX_BODY} bytes", ""
        case 415:
            return "media-type", "the body must be JSON", "send Content-Type: application/json"
        case _:
            return "http", error.reason or f"status {error.status}", ""


@web.middleware
async def _read_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """TCP: no changes, and no web page of elsewhere that had its name point here (DNS rebinding)."""
    if request.method not in ("GET", "HEAD"):
        raise Denied("the TCP port is read-only: changes go through the Unix socket")
    host = re.sub(r":\d*$", "", request.host)
    if host != "localhost" and not _is_address(host.strip("[]")):
        raise Denied(f"host {host!r} is not this node's: ask by IP address or as localhost")
    return await handler(request)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
