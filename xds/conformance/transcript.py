"""What was said between server and client, in order.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Mode(Enum):
    """The dialogue of a script."""

    SOTW = "sotw"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Opened:
    """A client opened a stream; they are numbered from 0."""

    stream: int
    at: float
    """Seconds on a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It is gone."""

    stream: int
    at: float
    by_server: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A DiscoveryRequest or DeltaDiscoveryRequest."""

    stream: int
    at: float
    url: str
    """type_url."""
    nonce: str = ""
    """response_nonce."""
    version: str = ""
    """version_info: state of the world alone."""
    names: tuple[str, ...] = ()
    """resource_names, or resource_names_subscribe; sorted."""
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """initial_resource_versions."""
    error: str | None = None
    """error_detail.message; None: it has none, which makes an answer an ACK."""
    node: str = ""
    """node.id."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """node.metadata, as JSON has it."""
    features: tuple[str, ...] = ()
    """node.client_features."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the server sent."""

    stream: int
    at: float
    url: str
    version: str
    nonce: str
    scripted: bool
    """Sent by the script, not by the server's own mind."""


Entry = Opened | Ended | Request | Response


class Transcript:
    """All of it.  Entries are only ever added."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.entries: list[Entry] = []

    @property
    def stream(self) -> int:
        """Number of the last stream; -1: none was ever opened."""
        return max((entry.stream for entry in self.entries if isinstance(entry, Opened)), default=-1)

    @property
    def alive(self) -> bool:
        """Whether the last stream is open."""
        number = self.stream
        ended = any(isinstance(entry, Ended) and entry.stream == number for entry in self.entries)
        return number >= 0 and not ended

    def requests(self, url: str = "", stream: int | None = None) -> list[Request]:
        """In order; of one type, of one stream."""
        return [
            entry
            for entry in self.entries
            if isinstance(entry, Request)
            and url in ("", entry.url)
            and (stream is None or entry.stream == stream)
        ]

    def responses(self, url: str = "", stream: int | None = None) -> list[Response]:
        """In order; of one type, of one stream."""
        return [
            entry
            for entry in self.entries
            if isinstance(entry, Response)
            and url in ("", entry.url)
            and (stream is None or entry.stream == stream)
        ]

    def answer(self, response: Response) -> Request | None:
        """The ACK or NACK of it: the first request that echoes its nonce.

        (In the state of the world a later one may echo it, too: a change of subscription.)
        """
        for request in self.requests(response.url, response.stream):
            if request.nonce == response.nonce:
                return request
        return None

    def subscribed(self, url: str) -> frozenset[str] | None:
        """What the last stream asks for by name; None: it never asked for this type."""
        requests = self.requests(url, self.stream)
        if not requests:
            return None
        if self.mode is Mode.SOTW:
            return frozenset(requests[-1].names)
        names: set[str] = set()
        for request in requests:
            names = (names - set(request.unsubscribe)) | set(request.names)
        return frozenset(names)
