"""The server's own mind: it has a mesh, and answers what is asked for and not sent yet.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from appswitch.xds.conformance.script import Push
from appswitch.xds.conformance.transcript import Mode, Request
from appswitch.xds.conformance.wire import name_of
from appswitch.xds.resources import CDS, EDS, LDS, RDS, RawResource

SERVED = (CDS, EDS, LDS, RDS)
WHOLE = frozenset({CDS, LDS})
"""A client asks for everything of these types; a response of the state of the world is complete."""


@dataclass(slots=True)
class View:
    """What one stream has asked for and was sent."""

    asked: dict[str, set[str]] = field(default_factory=dict)
    sent: dict[str, set[str]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    """Nonces of responses that were accepted or rejected."""


class Mesh:
    """What there is."""

    def __init__(self, mode: Mode, resources: tuple[RawResource, ...]) -> None:
        self._mode = mode
        self._there: dict[str, dict[str, RawResource]] = {url: {} for url in SERVED}
        self._versions = dict.fromkeys(SERVED, "1")
        for raw in resources:
            self._there[raw.type_url][name_of(raw)] = replace(raw, version=raw.version or "1")

    def take(self, push: Push) -> None:
        """What a script sends is the truth from now on."""
        if push.url not in self._there:
            return
        there = self._there[push.url]
        if push.url in WHOLE and self._mode is Mode.SOTW:
            beating = {raw.name for raw in push.resources if not raw.type_url}
            for name in set(there) - beating:
                del there[name]
        for raw in push.resources:
            if raw.type_url:
                there[name_of(raw)] = replace(raw, version=raw.version or push.version)
        for name in push.removed:
            there.pop(name, None)
        self._versions[push.url] = push.version

    def answer(self, view: View, request: Request) -> Push | None:
        """A response to a request, or None.  `view` comes to know both."""
        if request.url not in self._there:
            return None
        first = request.url not in view.asked
        asked = view.asked.setdefault(request.url, set())
        sent = view.sent.setdefault(request.url, set())
        if self._mode is Mode.SOTW:
            asked.clear()
            # Envoy asks again in the words of its last ACK where a cluster changed: it waits for endpoints.
            if request.nonce in view.answered:
                sent.clear()
        if request.nonce:
            view.answered.add(request.nonce)
        asked -= set(request.unsubscribe)
        asked |= set(request.names)
        there = self._there[request.url]
        if request.url in WHOLE:
            names = set(there) if first else set()
        else:
            sent &= asked - (set(request.names) if self._mode is Mode.DELTA else set())
            names = asked & set(there)
            if not names - sent:
                names = set()
            elif self._mode is Mode.DELTA:
                names -= sent
        gone = set(request.versions) - set(there) if first else set()
        if not names and not gone and not (first and request.url in WHOLE):
            return None
        sent |= names
        found = tuple(there[name] for name in sorted(names))
        return Push(request.url, self._versions[request.url], found, tuple(sorted(gone)))

    def sent(self, view: View, push: Push) -> None:
        """A script sent this."""
        view.sent.setdefault(push.url, set()).update(name_of(raw) for raw in push.resources)
        view.sent[push.url] -= set(push.removed)
