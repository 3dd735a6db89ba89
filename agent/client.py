"""The command line's HTTP client over the daemon's Unix socket.

http.client, because importing aiohttp takes half a second and `ax get` should take a tenth.
"""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from appswitch.agent.api_errors import exception_for
from appswitch.agent.resources import Error
from appswitch.errors import AppSwitchError, Denied, InvalidInput, Unavailable

DEADLINE: Final = 10.0
"""Seconds for a whole request."""
MAX_ANSWER: Final = 256 * 1024 * 1024
"""Bytes; 10,000 vservices of 10 backends are about 8 MB."""
SOCKET_NAME: Final = "api.sock"

T = TypeVar("T")


class Client:
    """One daemon, named by its run directory."""

    def __init__(self, run_dir: Path, deadline: float = DEADLINE) -> None:
        self._path = run_dir / SOCKET_NAME
        self._deadline = deadline

    def get(self, path: str, kind: type[T], query: dict[str, str] | None = None) -> T:
        """GET and decode.  Raises Unavailable, Denied, InvalidInput, and what the daemon's error says."""
        text = path + ("?" + urlencode(query) if query else "")
        return self._decode(self._request("GET", text), kind)

    def get_all(self, path: str, kind: type[T], query: dict[str, str] | None = None) -> list[T]:
        """GET a list of one kind."""
        return self.get(path, list[kind], query)  # type: ignore[valid-type]

    def post(self, path: str, body: Any, kind: type[T]) -> T:
        """POST a struct as JSON and decode the answer."""
        return self._decode(self._request("POST", path, msgspec.json.encode(body)), kind)

    def delete(self, collection: str, name: str) -> None:
        """DELETE one resource of a collection."""
        self._request("DELETE", f"{collection}/{quote(name, safe='')}")

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        end = time.monotonic() + self._deadline
        connection = _UnixConnection(self._path, self._deadline)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = _read(connection, response, end)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unavailable(f"no daemon at {self._path} (start one with: ax daemon)") from error
        except PermissionError as error:
            raise Denied(f"{self._path}: permission denied (be root or in the group appswitch)") from error
        except TimeoutError as error:
            raise Unavailable(
                f"the daemon at {self._path} did not answer within {self._deadline:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the daemon at {self._path} broke off: {error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise self._failure(response.status, content)
        return content

    def _failure(self, status: int, content: bytes) -> AppSwitchError:
        try:
            answer = msgspec.json.decode(content, type=Error)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Unavailable(f"the daemon at {self._path} answered with status {status}")
        return exception_for(answer.error, answer.message + (f" ({answer.hint})" if answer.hint else ""))

    def _decode(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the daemon at {self._path} is of another version: {error}") from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, deadline: float) -> None:
        super().__init__("localhost", timeout=deadline)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _read(connection: _UnixConnection, response: http.client.HTTPResponse, end: float) -> bytes:
    """The whole body; raises TimeoutError at `end`, however slowly the bytes come."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(1 << 20):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER:
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER} bytes")
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:  # None: HTTP/1.0 or `Connection: close`, the response has it
            connection.sock.settimeout(left)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(chunks)
