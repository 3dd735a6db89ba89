"""What the next daemon must know and the kernel does not: apps and the users' vservices.

One JSON object a line, appended as things happen (no fsync: the run directory is a tmpfs, and a machine
that falls takes its apps along).  A line that does not decode, such as the one a kill cut short, loses
only itself.  The file is written anew at start and whenever most of its lines are history.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

import msgspec

from appswitch.errors import InvalidInput
from appswitch.model import App, Mesh, Outbound, VService
from appswitch.policy import InboundPolicy, check

FILE_NAME: Final = "journal"
ISTIO_NAME: Final = "istio"
VERSION: Final = 1
HISTORY: Final = 1024
"""Lines beyond four times the living ones that make the file be written anew."""


class AppRecord(msgspec.Struct, frozen=True):
    """An app as it was admitted, and the number of its class in the kernel's tables."""

    app: App
    class_index: int


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line: exactly one member beside `version` is set."""

    version: int = 0
    app: AppRecord | None = None
    ended: int | None = None
    """AppId."""
    vservice: VService | None = None
    deleted: str | None = None
    """A vservice's name."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a journal says is alive."""

    apps: tuple[AppRecord, ...] = ()
    vservices: tuple[VService, ...] = ()
    broken: tuple[tuple[int, str], ...] = ()
    """(line number, reason) of lines left out."""


class IstioRecord(msgspec.Struct, frozen=True):
    """The last table that Istiod's pushes came to: apps keep it while Istiod is away, restarts included."""

    version: int
    vservices: tuple[VService, ...]
    names: tuple[tuple[str, tuple[IPv4Address, ...]], ...]
    policies: tuple[InboundPolicy, ...] = ()
    outbound: Outbound = Outbound()


def _encode_hook(value: Any) -> Any:
    if isinstance(value, IPv4Address | IPv4Network):
        return str(value)
    raise NotImplementedError(type(value))


def _decode_hook(kind: type[Any], value: Any) -> Any:
    if kind in (IPv4Address, IPv4Network) and isinstance(value, str):
        return kind(value)
    raise ValueError(f"expected {kind.__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_encode_hook)
_decoder = msgspec.json.Decoder(Entry, dec_hook=_decode_hook)
_istio = msgspec.json.Decoder(IstioRecord, dec_hook=_decode_hook)


def decode(line: bytes) -> Entry:
    """One line.  Raises InvalidInput."""
    try:
        entry = _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(str(error)) from error
    if entry.version != VERSION:
        raise InvalidInput(f"version {entry.version}, this daemon knows {VERSION}")
    if sum(part is not None for part in (entry.app, entry.ended, entry.vservice, entry.deleted)) != 1:
        raise InvalidInput("not exactly one of app, ended, vservice, deleted")
    return entry


def encode(entry: Entry) -> bytes:
    """One line, its end included."""
    return _encoder.encode(entry) + b"\n"


def replay(data: bytes) -> Saved:
    """The state after all lines of a journal; pure."""
    apps: dict[int, AppRecord] = {}
    vservices: dict[str, VService] = {}
    broken = []
    for count, line in enumerate(data.splitlines(), 1):
        try:
            entry = decode(line)
        except InvalidInput as error:
            broken.append((count, str(error)))
            continue
        if entry.app is not None:
            apps[entry.app.app.id] = entry.app
        elif entry.ended is not None:
            apps.pop(entry.ended, None)
        elif entry.vservice is not None:
            vservices[entry.vservice.name] = entry.vservice
        elif entry.deleted is not None:
            vservices.pop(entry.deleted, None)
    return Saved(tuple(apps.values()), tuple(vservices.values()), tuple(broken))


def decode_istio(data: bytes) -> Mesh:
    """Istio's table.  Raises InvalidInput."""
    try:
        record = _istio.decode(data)
        check(record.policies)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(str(error)) from error
    return Mesh(record.vservices, record.names, record.policies, record.outbound)


class Journal:
    """The file.  `failed(reason)` hears once when the disk refuses what is written, and `failed("")` when it
    takes it again; the daemon goes on."""

    def __init__(self, run_dir: Path, failed: Callable[[str], None]) -> None:
        self._path = run_dir / FILE_NAME
        self._istio_path = run_dir / ISTIO_NAME
        self._failed = failed
        self._descriptor = -1
        self._lines = 0
        self._behind = False
        """The file lacks what the disk refused, or ends in half a line: it must be written anew."""
        self._alive: dict[int | str, bytes] = {}
        self._istio_waits: bytes | None = None
        """Istio's table that the disk refused."""
        self._problem = ""

    @property
    def problem(self) -> str:
        """What is wrong, in words; empty: nothing."""
        return f"the journal is not written ({self._problem}): a restart may forget" if self._problem else ""

    def sweep(self) -> None:
        """Each second: try again what the disk refused."""
        if self._behind:
            self._write(self._rewrite)
        if self._istio_waits is not None:
            self._write_istio(self._istio_waits)

    def read(self) -> Saved:
        """What the last daemon left.  Raises OSError but for a file that is not there."""
        try:
            return replay(self._path.read_bytes())
        except FileNotFoundError:
            return Saved()

    def start(self, apps: tuple[AppRecord, ...], vservices: tuple[VService, ...]) -> None:
        """Begin anew with what is alive; where the disk refuses that, what is there still holds."""
        self._alive = {record.app.id: encode(Entry(VERSION, app=record)) for record in apps}
        self._alive |= {vservice.name: encode(Entry(VERSION, vservice=vservice)) for vservice in vservices}
        self._write(self._rewrite)

    def app(self, record: AppRecord) -> None:
        """An app was admitted."""
        self._append(Entry(VERSION, app=record), record.app.id)

    def ended(self, app_id: int) -> None:
        """An app is gone."""
        self._append(Entry(VERSION, ended=app_id), app_id)

    def vservice(self, vservice: VService) -> None:
        """A user created a vservice."""
        self._append(Entry(VERSION, vservice=vservice), vservice.name)

    def deleted(self, name: str) -> None:
        """A user deleted a vservice."""
        self._append(Entry(VERSION, deleted=name), name)

    def save_istio(self, mesh: Mesh) -> None:
        """Keep Istio's table."""
        policies, outbound = mesh.policies or (), mesh.outbound or Outbound()
        record = IstioRecord(VERSION, mesh.vservices, mesh.names, policies, outbound)
        self._write_istio(_encoder.encode(record))

    def _write_istio(self, data: bytes) -> None:
        new = self._istio_path.with_suffix(".new")
        self._istio_waits = data
        try:
            new.write_bytes(data)
            os.replace(new, self._istio_path)
            self._istio_waits = None
        except OSError as error:
            self._tell(error.strerror or str(error))
            try:
                new.unlink(missing_ok=True)
            except OSError:
                pass  # a directory that cannot be written
        else:
            self._tell("")

    def read_istio(self) -> Mesh:
        """Istio's last table; empty where none was kept.  Raises InvalidInput (it is broken), OSError."""
        try:
            return decode_istio(self._istio_path.read_bytes())
        except FileNotFoundError:
            return Mesh()
        except InvalidInput as error:
            raise InvalidInput(f"{self._istio_path}: {error}") from error

    def forget_istio(self) -> None:
        """The daemon has no Istiod (any more)."""
        self._istio_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget everything (`--clean`)."""
        self.close()
        self._path.unlink(missing_ok=True)
        self.forget_istio()

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, entry: Entry, key: int | str) -> None:
        line = encode(entry)
        if entry.app is not None or entry.vservice is not None:
            self._alive[key] = line
        else:
            self._alive.pop(key, None)
        self._lines += 1
        if self._behind or self._lines > 4 * len(self._alive) + HISTORY:
            self._write(self._rewrite)
        else:
            self._write(lambda: self._add(line))

    def _add(self, line: bytes) -> None:
        if os.write(self._descriptor, line) != len(line):
            self._rewrite()  # a full disk took half a line: end it, or take it back

    def _write(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._behind = True
            self._tell(error.strerror or str(error))
        else:
            self._behind = False
            self._tell("")

    def _tell(self, reason: str) -> None:
        """The first failure, and the end of all."""
        if not reason and (self._behind or self._istio_waits is not None):
            return
        if bool(reason) != bool(self._problem):
            self._problem = reason
            self._failed(reason)

    def _rewrite(self) -> None:
        """Write all that lives to a new file and put it in the old one's place."""
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.writelines(self._alive.values())
            os.replace(new, self._path)
        except OSError:
            os.close(descriptor)
            try:
                new.unlink(missing_ok=True)
            except OSError:
                pass  # the first error tells
            raise
        self.close()
        self._descriptor, self._lines = descriptor, len(self._alive)
