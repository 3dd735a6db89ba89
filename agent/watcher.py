"""The kernel's events: into the service table and the log.  After an overflow the table is read anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from appswitch.agent.logs import Event, Log
from appswitch.agent.registry import Registry
from appswitch.agent.seams import KernelDriver
from appswitch.agent.writer import Writer
from appswitch.errors import NotFound
from appswitch.interceptor.decision import decide, error_name
from appswitch.interceptor.events import (
    AdmissionRefused,
    Crowded,
    Denied,
    ListenerDown,
    ListenerUp,
    PoolEmpty,
    TableFull,
)
from appswitch.interceptor.events import Event as KernelEvent
from appswitch.model import Service

REFUSALS: Final = 200
"""Refusals logged each second; more are counted, so that no app can fill the disk or the daemon's time."""


class Watcher:
    """Reads events; `pool_empty()` is called when bind() found no port."""

    def __init__(
        self,
        registry: Registry,
        kernel: KernelDriver,
        writer: Writer,
        log: Log,
        pool_empty: Callable[[], None],
        reset: Callable[[AdmissionRefused], object] = lambda refused: None,
    ) -> None:
        """`reset` may tell a refused stranger so (`interceptor.reset`)."""
        self._registry = registry
        self._kernel = kernel
        self._writer = writer
        self._log = log
        self._pool_empty = pool_empty
        self._reset = reset
        self._lost = kernel.lost()
        self._hushed = kernel.hushed()
        self._refusals = 0

    def read(self) -> None:
        """Take all events that wait."""
        events = self._kernel.read_events()
        for event in settled(events):
            self._take(event)
        if any(isinstance(event, PoolEmpty) for event in events):  # one block, however many missed one
            self._pool_empty()
        if self._registry.index.touched:
            self._writer.soon()

    def sweep(self) -> None:
        """Each second: see whether events were lost, and let refusals be logged again."""
        untold = max(0, self._refusals - REFUSALS) + (hushed := self._kernel.hushed()) - self._hushed
        if untold:
            self._log(Event.REFUSALS_COUNTED, count=untold)
        self._refusals, self._hushed = 0, hushed
        if (lost := self._kernel.lost()) != self._lost:
            self._log(Event.EVENTS_LOST, count=lost - self._lost)
            self._lost = lost
            self.resync()

    def resync(self) -> None:
        """Make the service table equal to the kernel's."""
        came, went = self._registry.resync(self._kernel.services())
        for service in went:
            self._log(Event.SERVICE_DOWN, **self._words(service))
        for service in came:
            self._log(Event.SERVICE_UP, **self._words(service))
        if came or went:
            self._writer.soon()

    def _take(self, event: KernelEvent) -> None:
        match event:
            case ListenerUp(service):
                if self._registry.listener_up(service):
                    self._log(Event.SERVICE_UP, **self._words(service))
            case ListenerDown(service):
                words = self._words(service)
                if self._registry.listener_down(service):
                    self._log(Event.SERVICE_DOWN, **words)
            case Denied():
                self._refused(Event.CONNECT_DENIED, lambda: self._reasons(event))
            case AdmissionRefused():
                self._reset(event)
                words = {"app": f"{event.app:08x}", "source": f"{event.source}:{event.source_port}"}
                self._refused(Event.ADMISSION_REFUSED, lambda: words | {"real_port": event.real_port})
            case PoolEmpty(app, port, protocol):
                words = {"app": f"{app:08x}", "service": f"{port}/{protocol.label}"}
                self._refused(Event.POOL_EMPTY, lambda: words)
            case TableFull(app, port, protocol):
                words = {"app": f"{app:08x}", "service": f"{port}/{protocol.label}", "table": "ports"}
                self._refused(Event.TABLE_FULL, lambda: words)
            case Crowded(app, port, protocol):
                self._log(Event.APP_CROWDED, app=f"{app:08x}", service=f"{port}/{protocol.label}")
            case _:
                assert_never(event)

    def _refused(self, event: Event, words: Callable[[], Mapping[str, object]]) -> None:
        """`words` is asked only where they are logged."""
        self._refusals += 1
        if self._refusals <= REFUSALS:
            self._log(event, **words())

    def _reasons(self, denied: Denied) -> dict[str, object]:
        """What was asked for, and what the decision says of it now."""
        to = denied.destination
        words: dict[str, object] = {
            "app": f"{denied.app:08x}",
            "destination": f"{to.address}:{to.port}/{to.protocol.label}",
            "error": error_name(denied.error),
        }
        if self._refusals >= REFUSALS:
            return words
        try:
            verdict = decide(self._registry.index, self._registry.app(denied.app), to)
        except NotFound:
            return words
        return words | {"rule": verdict.rule.value, "text": verdict.why}

    def _words(self, service: Service) -> dict[str, object]:
        try:
            address = str(self._registry.app(service.app).ip)
        except NotFound:
            address = "?"
        return {
            "app": f"{service.app:08x}",
            "service": f"{address}:{service.port}/{service.protocol.label}",
            "real_port": service.real_port,
        }


def settled(events: Sequence[KernelEvent]) -> list[KernelEvent]:
    """Without what a later event of the same port overtakes.

    A program that listens and closes in a loop makes 40,000 events a second.
    """
    last = {_port(event.service): event for event in events if isinstance(event, ListenerUp | ListenerDown)}
    return [
        event
        for event in events
        if not isinstance(event, ListenerUp | ListenerDown) or last[_port(event.service)] is event
    ]


def _port(service: Service) -> tuple[int, int, int, int]:
    return service.app, service.protocol, service.port, service.real_port
