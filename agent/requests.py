"""Decodes what REST clients and the command line ask for.  Pure; raises only `InvalidInput`.

The command line parses its flags into `NewVService` too, so that both ways share every rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated

import msgspec

from appswitch.agent.hello import parse_identity, parse_ip, parse_labels, parse_name, parse_port
from appswitch.errors import InvalidInput
from appswitch.model import Backend, Class, LbPolicy, PortMap, VService

DEFAULT_CLASS = Class()


@dataclass(frozen=True, slots=True)
class Attachment:
    """What `ax attach` asks for."""

    target: str
    """Process id, cgroup path, container id or name."""
    app_class: Class = DEFAULT_CLASS
    ip: IPv4Address | None = None
    """None: made from the name, or the pod's own address, or the node's."""
    name: str = ""


MAX_BODY = 65_536
"""Bytes of a request body.  The largest sensible one (1,024 backends) is about 24,000."""
MAX_BACKENDS = 1024
"""As many as the kernel expands weighted round robin to."""
MAX_PORTS = 64
DEFAULT_PORT = 80
"""Of `ax explain DEST` without port: what `curl DEST` dials."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Text = Annotated[str, msgspec.Meta(max_length=255)]


class NewPort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`--ports V:A`: the vservice's port and the application's port behind it."""

    port: Port
    target: Port


class NewExpose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`--expose A:H`: the application's port, reached on the same port within the mesh.

    The host port is kept and shown; only an external vservice will open it.
    """

    port: Port
    host_port: Port


class NewVService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/vservices."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    """DNS name, without domain; unique."""
    ip: Text | None = None
    """The virtual address; without it one is made from the name, equal on all nodes."""
    backends: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MAX_BACKENDS)]
    """`IP` or `IP:port` each."""
    ports: Annotated[list[NewPort], msgspec.Meta(max_length=MAX_PORTS)] = []
    expose: Annotated[list[NewExpose], msgspec.Meta(max_length=MAX_PORTS)] = []
    """The older spelling of `ports`: give one of the two."""
    lbtype: Text = LbPolicy.RANDOM.value
    source_ip: Text | None = None
    """The node's address that connections to backends outside shall come from."""
    external: bool = False
    """Refused until clusters are there."""


class NewApp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/apps: a container, pod or cgroup becomes an app."""

    target: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """Process id, path of a cgroup, id or name of a container."""
    ip: Text | None = None
    """The virtual address; without it one is made from the name, or it is the pod's own, or the node's."""
    name: Text = ""
    labels: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """CSV of key=value; empty: the default label."""
    namespace: Text = ""
    service_account: Text = ""


_body = msgspec.json.Decoder(NewVService)
_app_body = msgspec.json.Decoder(NewApp)


def decode_app(body: bytes) -> Attachment:
    """A request body to what shall be attached."""
    try:
        request = _app_body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"request body: {error}") from error
    return attachment(request)


def attachment(request: NewApp) -> Attachment:
    """Check a request's values, by the rules of `ax run`'s flags."""
    if "\x00" in request.target:
        raise InvalidInput("target: holds a NUL byte")
    return Attachment(
        target=request.target,
        app_class=Class(
            labels=parse_labels(request.labels),
            namespace=parse_identity("--namespace", request.namespace),
            service_account=parse_identity("--service-account", request.service_account),
        ),
        ip=parse_ip("--ip", request.ip) if request.ip else None,
        name=parse_name("--name", request.name) if request.name else "",
    )


def decode_vservice(body: bytes) -> VService:
    """A request body to a vservice; everything but whether it clashes with another is checked."""
    try:
        request = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"request body: {error}") from error
    return vservice(request)


def vservice(request: NewVService) -> VService:
    """Check a request's values; raises InvalidInput naming the field and the value."""
    if request.external:
        raise InvalidInput("external: exposing a vservice on every node comes with a later release")
    name = parse_name("name", request.name)
    ports, text = _ports(request)
    try:
        policy = LbPolicy(request.lbtype)
    except ValueError as error:
        raise InvalidInput(f"lbtype {request.lbtype!r} is not one of Random, RoundRobin") from error
    if not request.backends:
        raise InvalidInput("backends: a vservice needs at least one (IP or IP:port)")
    backends = tuple(parse_backend(backend) for backend in request.backends)
    if len(set(backends)) != len(backends):
        raise InvalidInput("backends: the same one is named twice")
    return VService(
        name=name,
        addresses=(parse_ip("ip", request.ip),) if request.ip is not None else (),
        ports=ports,
        backends=backends,
        policy=policy,
        source_ip=parse_ip("source-ip", request.source_ip) if request.source_ip else None,
        ports_text=text,
    )


def _ports(request: NewVService) -> tuple[tuple[PortMap, ...], str]:
    if request.ports and request.expose:
        raise InvalidInput("ports and expose are two spellings of one thing: give one of them")
    shown: list[tuple[int, int]] = []
    if request.ports:
        shown = [(pair.port, pair.target) for pair in request.ports]
        ports = tuple(PortMap(pair.port, pair.target) for pair in request.ports)
    elif request.expose:
        shown = [(pair.port, pair.host_port) for pair in request.expose]
        ports = tuple(PortMap(pair.port, pair.port) for pair in request.expose)
    else:
        raise InvalidInput("ports: a vservice needs at least one (--ports VIRTUAL:APPLICATION)")
    seen: set[int] = set()
    for pair in ports:
        if pair.port in seen:
            raise InvalidInput(f"ports: {pair.port} is named twice")
        seen.add(pair.port)
    return ports, "[" + " ".join(f"{{{left} {right}}}" for left, right in shown) + "]"


def parse_pair(text: str, field: str, meaning: str) -> tuple[int, int]:
    """`A:B`, two ports; `meaning` says in the error which is which, e.g. `VIRTUAL:APPLICATION`."""
    left, colon, right = text.partition(":")
    if not colon:
        raise InvalidInput(f"{field} {text!r} is not {meaning}, two ports, e.g. 80:8000")
    return parse_port(field, left), parse_port(field, right)


def parse_backend(text: str) -> Backend:
    """`IP` or `IP:port`."""
    address, colon, port = text.partition(":")
    return Backend(parse_ip("backend", address), parse_port("backend port", port) if colon else 0)


class ExplainQuery(msgspec.Struct, frozen=True):
    """Query of GET /v1/explain."""

    host: str
    """IP or name dialled."""
    port: int
    app: str = ""
    """AppId or name; empty: a client that has only `labels`."""
    labels: str | None = None
    """CSV of key=value; None: the default label."""


MAX_SECONDS = 60.0


def decode_seconds(query: Mapping[str, str]) -> float:
    """The query parameter `seconds` of GET /v1/bpf; 0 without it."""
    if unknown := sorted(set(query) - {"seconds"}):
        raise InvalidInput(f"unknown query parameter {unknown[0]!r}: known is seconds")
    return parse_seconds(query.get("seconds", "0"))


def parse_seconds(text: str) -> float:
    """How long statistics are on."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= MAX_SECONDS:  # "nan" is in no range
        raise InvalidInput(f"seconds {text!r} is not a number from 0 to {MAX_SECONDS:g}")
    return seconds


def decode_explain(query: Mapping[str, str]) -> ExplainQuery:
    """The query parameters `from`, `labels`, `destination`."""
    if unknown := sorted(set(query) - {"from", "labels", "destination"}):
        raise InvalidInput(f"unknown query parameter {unknown[0]!r}: known are from, labels, destination")
    if not query.get("destination"):
        raise InvalidInput("destination: missing (IP[:port] or NAME[:port])")
    if query.get("from") and "labels" in query:
        raise InvalidInput("from and labels exclude each other: an app has its own labels")
    for name, value in query.items():
        if len(value) > 4096:
            raise InvalidInput(f"{name}: longer than 4096 characters")
    host, colon, port = query["destination"].partition(":")
    if ":" in port:
        destination = query["destination"]
        raise InvalidInput(
            f"destination {destination!r}: services have IPv4 addresses; name one, or its name"
        )
    if not host:
        raise InvalidInput("destination: no IP or name before ':'")
    number = parse_port("destination port", port) if colon else DEFAULT_PORT
    return ExplainQuery(host, number, query.get("from", ""), query.get("labels"))
