"""The log: one event for each decision worth keeping, with stable names.

`python -m appswitch.agent.logs` prints docs/logs.md; a test holds both equal.  Everything that
writes to the log gets a `Log`; nothing logs through a global.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import structlog

from appswitch.agent.render import readable
from appswitch.errors import UsageError


class Event(Enum):
    """(name, level, meaning) of everything that is logged."""

    STARTED = ("daemon.started", "info", "The daemon is ready; saved state is restored.")
    STOPPED = ("daemon.stopped", "info", "The daemon ends; apps go on with the last tables.")
    TASK_FAILED = ("daemon.task_failed", "error", "A part of the daemon ended by an error.")
    APP_STARTED = ("app.started", "info", "An app was admitted and may exec.")
    APP_REFUSED = ("app.refused", "warning", "A launch was refused: bad input, no right, or no room.")
    APP_DIED_EARLY = ("app.died_early", "warning", "The launcher went away before its launch was complete.")
    APP_ADOPTED = ("app.adopted", "info", "An app of an earlier daemon still runs and was taken over.")
    APP_ENDED = ("app.ended", "info", "An app's last process ended; its services and ports are gone.")
    APP_ATTACHED = ("app.attached", "info", "A container, pod or cgroup became an app, by `ax attach`.")
    APP_DETACHED = ("app.detached", "info", "An attached app was let go; its programs run on.")
    HELLO_MALFORMED = ("launch.malformed", "warning", "A message on the launch socket did not decode.")
    HELLO_TIMEOUT = ("launch.timeout", "warning", "A launcher did not send its next message in time.")
    SERVICE_UP = ("service.up", "info", "An app listens.")
    SERVICE_DOWN = ("service.down", "info", "An app stopped listening.")
    CONNECT_DENIED = ("connect.denied", "warning", "A connect() or send was refused.")
    ADMISSION_REFUSED = ("admission.refused", "warning", "A SYN was dropped before its server saw it.")
    TABLES_WRITTEN = ("tables.written", "debug", "The kernel's tables were brought up to date.")
    TABLE_FULL = ("tables.full", "error", "A table is full; the last good entries stay.")
    REFUSALS_COUNTED = (
        "refusals.counted",
        "warning",
        "Refusals of one second beyond those logged one by one.",
    )
    POOL_EMPTY = ("pool.empty", "error", "bind() found no real port left and failed with EADDRINUSE.")
    APP_CROWDED = (
        "app.crowded",
        "warning",
        "An app holds as many real ports as one may: bind() to one more fails with EADDRINUSE.",
    )
    POOL_LOW = ("pool.low", "warning", "No more ports can be reserved: listening apps may get EADDRINUSE.")
    EVENTS_LOST = ("events.lost", "warning", "The event ring overflowed; the service table was read anew.")
    VSERVICE_CREATED = ("vservice.created", "info", "A vservice was created.")
    VSERVICE_DELETED = ("vservice.deleted", "info", "A vservice was deleted.")
    JOURNAL_BROKEN = ("journal.broken", "warning", "A line of the journal did not decode and was left out.")
    JOURNAL_FAILED = ("journal.failed", "error", "The journal was not written: a restart may forget.")
    JOURNAL_RECOVERED = (
        "journal.recovered",
        "info",
        "The journal is written again; nothing is missed.",
    )
    HOLDER_STARTED = ("holder.started", "info", "The process that answers socket() calls was started.")
    HOLDER_FOUND = ("holder.found", "info", "The holder of an earlier daemon still runs and was taken over.")
    HOLDER_LOST = ("holder.lost", "error", "The holder ended or does not answer; it is started again.")
    ISTIO_APPLIED = ("istio.applied", "info", "A push of Istiod's is in the tables.")
    ISTIO_NACKED = ("istio.nacked", "warning", "A resource did not decode; the last good one is kept.")
    ISTIO_WITHHELD = (
        "istio.withheld",
        "warning",
        "A resource is not there: Istiod says why, or its time is over.",
    )
    ISTIO_UNSUPPORTED = ("istio.unsupported", "warning", "A push holds what this release does not honour.")
    ISTIO_DISCONNECTED = ("istio.disconnected", "warning", "The stream ended; it is tried again.")
    ISTIO_CONNECTED = ("istio.connected", "info", "A stream to Istiod is open.")
    DNS_MALFORMED = ("dns.malformed", "warning", "Packets did not decode; one event in 10 s, with `count`.")
    DNS_SERVER_REFUSED = ("dns.server_refused", "warning", "A forwarding server is our own: it is not asked.")
    REQUEST_FAILED = ("rest.failed", "error", "A REST request ended in an error of ours.")
    LOG_REOPENED = ("log.reopened", "info", "SIGHUP: the log file was opened anew.")
    NOTE = ("note", "info", "Something of a part that has no event of its own.")

    @property
    def label(self) -> str:
        """The `event` field."""
        return self.value[0]

    @property
    def level(self) -> str:
        """structlog's method, and the `level` field."""
        return self.value[1]

    @property
    def meaning(self) -> str:
        """One line for docs/logs.md."""
        return self.value[2]


class Field(Enum):
    """(name, meaning) of every field an event may carry beside `event`, `level` and `timestamp`."""

    APP = ("app", "AppId, eight hex digits")
    NAME = ("name", "Name of the app or vservice")
    IP = ("ip", "The app's or vservice's virtual address")
    PID = ("pid", "Process id of the launched program")
    UID = ("uid", "User id of the caller")
    LABELS = ("labels", "Labels as key=value,...")
    COMMAND = ("command", "First word of the command")
    INHERITED = ("inherited", "Descriptors of the caller's sockets that the launcher kept or closed")
    DESTINATION = ("destination", "ADDRESS:PORT/PROTOCOL that was asked for")
    SOURCE = ("source", "ADDRESS:PORT of the peer")
    RULE = ("rule", "Part of the decision that spoke: loopback, link-local, vservice, service, app, …")
    SERVICE = ("service", "APP's ADDRESS:PORT/PROTOCOL")
    REAL_PORT = ("real_port", "The node's port behind a service")
    ERROR = ("error", "Name of the errno, or the reason in words")
    TABLE = ("table", "Name of the kernel's table")
    ROWS = ("rows", "Rows that changed")
    COMMANDS = ("commands", "Writes to the kernel's tables")
    MILLISECONDS = ("ms", "How long it took")
    COUNT = ("count", "How many")
    APPS = ("apps", "Apps alive")
    NODE = ("node", "The node's name")
    NODE_IP = ("node_ip", "The node's address")
    RUN_DIR = ("run_dir", "The run directory")
    REST_PORT = ("rest_port", "TCP port of the read-only REST API")
    DNS_PORT = ("dns_port", "Port of the DNS sockets on 127.0.0.1")
    TASK = ("task", "Name of the part")
    LINE = ("line", "Line number in a file")
    TARGET = ("target", "Istiod's address")
    VERSION = ("version", "Version of a push or of the product")
    RESOURCE = ("resource", "Name of an xDS resource")
    TYPE = ("type", "Type of an xDS resource")
    STATUS = ("status", "Exit status or state")
    TEXT = ("text", "Words")

    @property
    def label(self) -> str:
        """The key in the JSON object."""
        return self.value[0]


FIELDS = frozenset(field.label for field in Field)


class Log:
    """Writes events.  `log(Event.APP_STARTED, app="f0000001", ip="1.1.1.1")`."""

    def __init__(self, logger: Any, file: TextIO | None = None) -> None:
        """`logger` is structlog's, or a test's stand-in with its methods; `file` is closed with this log."""
        self._logger = logger
        self._file = file

    def close(self) -> None:
        """Close the file, if this log writes to one of its own."""
        if self._file is not None:
            with suppress(OSError):  # what the disk did not take is lost
                self._file.close()

    def reopen(self) -> None:
        """The file may have been moved away: go on in one of its old name."""
        if self._file is not None:
            with suppress(OSError), open(self._file.name, "a") as new:
                os.dup2(new.fileno(), self._file.fileno(), inheritable=False)
        self(Event.LOG_REOPENED)

    def __call__(self, event: Event, **fields: Any) -> None:
        """Write one event; field names are those of `Field` (a test checks every call)."""
        ready = {key: plain(value) for key, value in fields.items()}
        try:
            getattr(self._logger, event.level)(event.label, **ready)
        except OSError:
            return  # a full disk, a pipe that nobody reads: the daemon's work goes on unlogged

    def note(self, name: str, **fields: Any) -> None:
        """An event by its name, from a part that knows no `Event`; an unknown name becomes a note."""
        event = _BY_NAME.get(name)
        if event is None:
            self(Event.NOTE, text=name, **fields)
        else:
            self(event, **fields)


_BY_NAME = {event.label: event for event in Event}


def plain(value: Any) -> Any:
    """What JSON can hold: numbers, texts and switches as they are, all else as text."""
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _printable(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For terminals: names, labels and commands are anybody's, and may hold escape sequences."""
    return {key: readable(value) if isinstance(value, str) else value for key, value in fields.items()}


def open_log(path: Path | None, stream: TextIO = sys.stderr) -> Log:
    """A log to a file (append) or to `stream`: JSON, but on a terminal for people.  Raises UsageError."""
    try:
        target = path.open("a", encoding="utf-8", buffering=1) if path is not None else stream
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--log-file {path}: {reason}; name a file that can be written") from error
    terminal = path is None and target.isatty()
    renderers: list[Any] = (
        [_printable, structlog.dev.ConsoleRenderer(colors=True)]
        if terminal
        else [structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False)]
    )
    logger = structlog.wrap_logger(
        structlog.WriteLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    return Log(logger, target if path is not None else None)


def reference() -> str:
    """docs/logs.md."""
    lines = [
        "# Log events",
        "",
        "The daemon logs one JSON object a line to standard error or to `--log-file`; on a terminal, text.",
        "Names are stable.  Made by `python -m appswitch.agent.logs`.",
        "",
        "| event | level | meaning |",
        "|---|---|---|",
        *(f"| `{event.label}` | {event.level} | {event.meaning} |" for event in Event),
        "",
        "| field | meaning |",
        "|---|---|",
        "| `event`, `level`, `timestamp` | On every line; UTC, ISO 8601 |",
        *(f"| `{field.value[0]}` | {field.value[1]} |" for field in Field),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
