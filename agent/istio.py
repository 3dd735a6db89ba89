"""The Istio agent: an ADS stream in, vservices and names out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import msgspec

from appswitch.agent import istio_inventory, istio_origin
from appswitch.agent import istio_wire as wire
from appswitch.agent.istio_names import ClusterNames, Resolver
from appswitch.agent.istio_options import SOTW, IstioOptions, metadata, node_id, servers
from appswitch.agent.logs import Event, Log
from appswitch.agent.tasks import spawn
from appswitch.model import Mesh, Outbound, VService
from appswitch.policy import InboundPolicy
from appswitch.xds.ads import Config, Ignored, Rejected, Withheld
from appswitch.xds.client import Client
from appswitch.xds.delta import Delta
from appswitch.xds.names import Names
from appswitch.xds.requests import NodeInfo
from appswitch.xds.resources import SHORT, Unsupported
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import REGISTRY_ONLY, Translation, Translator
from appswitch.xds.transport import Transport

HOLD = 15.0
"""Seconds that the first table waits to be complete: rows of an earlier daemon may still be in force, and
a table made from the first of five messages would take most of them away."""
HOLD_NAMES = 5.0
"""Seconds that it waits for host names alone: a name server that is down takes the services behind names,
and no others."""


@dataclass(frozen=True, slots=True)
class IstioTable:
    """What Istiod's configuration means here, as of its last push."""

    vservices: tuple[VService, ...] = ()
    names: Names = ()
    policies: tuple[InboundPolicy, ...] | None = None
    unsupported: tuple[Unsupported, ...] = ()
    """All that is asked for and not done."""
    versions: tuple[tuple[str, str], ...] = ()
    """(cds, eds, …; version)."""
    outbound: Outbound | None = None
    """What is asked for destinations outside the mesh; None: nothing was said yet."""

    @property
    def mesh(self) -> Mesh:
        """What the daemon puts in force."""
        return Mesh(self.vservices, self.names, self.policies, self.outbound)

    def counts(self) -> dict[str, int]:
        """How often each kind of thing is asked for and not done."""
        return dict(sorted(Counter(item.field for item in self.unsupported).items()))


def _outbound(translation: Translation) -> Outbound | None:
    if not translation.outbound:
        return None
    return Outbound(translation.outbound == REGISTRY_ONLY, translation.direct)


def transport(options: IstioOptions) -> Transport:
    """How its Istiod is reached."""
    ca_cert, token, cert, key = (
        Path(text) if text else None for text in (options.ca_cert, options.token, options.cert, options.key)
    )
    return Transport(options.target, ca_cert, token, cert, key, options.server_name)


@dataclass(slots=True)
class IstioAgent:
    """Speaks to one Istiod as one workload, and hands over a table after every change."""

    options: IstioOptions
    apply: Callable[[IstioTable], Awaitable[None]]
    """Called for one table after the other; when it returns, the push is acknowledged."""
    log: Log
    environ: Mapping[str, str] = field(default_factory=dict)
    report: Callable[[tuple[Unsupported, ...]], None] = lambda _: None
    """Hears what is asked for and not done, whenever that changes."""
    connected_now: bool = False
    table: IstioTable = field(default_factory=IstioTable)
    """The last one handed over."""
    _translator: Translator = field(init=False)
    _client: Client = field(init=False)
    _resolver: Resolver = field(init=False)
    _names: ClusterNames = field(init=False)
    _config: Config | None = None
    """The last one."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from translation to the end of `apply`."""
    _released: bool = False
    _applied: bool = False
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        """Take the node id apart.  Raises UsageError."""
        options = self.options
        node = NodeInfo(node_id(options, self.environ), metadata(options, self.environ), options.locality)
        self._translator = Translator(node.namespace, node.domain, node.addresses, options.trust_domain)
        dialogue = Sotw() if options.mode == SOTW else Delta()
        self._client = Client(transport(options), node, self, dialogue, fall_back=True)
        self._resolver = Resolver(servers(options))
        self._names = ClusterNames(self._translate, self._resolver)

    async def run(self) -> None:
        """Run until cancelled.  The last table stays in force whatever happens to Istiod."""
        try:
            await asyncio.gather(self._client.run(), self._names.run())
        finally:
            await self._resolver.close()
            self.connected_now = False
            if self._timer is not None:
                self._timer.cancel()

    # -- what the client says

    async def publish(self, config: Config) -> None:
        """A configuration to put in force."""
        self._names.want(config)
        self._config = config
        await self._translate()

    async def _translate(self) -> None:
        """Translate the last configuration off the event loop, with its host names' addresses; hand over."""
        async with self._turn:
            config = self._config
            if config is None:
                return
            if not self._released and (config.awaited or not self._names.complete):
                self._wait(HOLD if config.awaited else HOLD_NAMES)
                return
            self._released = True
            translation = await asyncio.to_thread(self._translator.translate, config, self._names.answers)
            await self._hand_over(translation, config)

    def connected(self) -> None:
        """A stream is open."""
        if self.connected_now:
            return  # asked again at once, or in the other dialogue
        self.connected_now = True
        self.log(Event.ISTIO_CONNECTED, target=self.options.target)

    def disconnected(self, reason: str, delay: float) -> None:
        """A stream ended."""
        self.connected_now = False
        self.log(
            Event.ISTIO_DISCONNECTED,
            target=self.options.target,
            error=reason,
            text=f"next try in {delay:.1f} s",
        )

    def fell_back(self, reason: str) -> None:
        """An old Istiod, or another control plane."""
        text = "the server does not know delta xDS: state of the world instead, as --istio-mode sotw"
        self.log(Event.NOTE, text=text, target=self.options.target, error=reason)

    def rejected(self, rejected: Rejected | Ignored | Withheld) -> None:
        """Something of a response was not taken, or is not sent."""
        if isinstance(rejected, Withheld):
            for resource, reason in rejected.errors:
                self.log(Event.ISTIO_WITHHELD, type=SHORT[rejected.type_url], resource=resource, error=reason)
            return
        if isinstance(rejected, Ignored):
            self.log(Event.NOTE, text="a response of a type that was not asked for", type=rejected.type_url)
            return
        for resource, reason in rejected.errors:
            self.log(
                Event.ISTIO_NACKED,
                type=SHORT[rejected.type_url],
                version=rejected.version,
                resource=resource,
                error=reason,
            )

    # -- what the daemon asks

    def answer(self, wanted: wire.Wanted, now: float) -> wire.Answer:
        """To a question, as things stand; `now` of the monotonic clock.  Raises InvalidInput."""
        types = self._client.ads.held.types
        match wanted:
            case wire.PageWanted(kind, after):
                rows, more = istio_inventory.page(types, kind, after, now)
                return wire.Answer(data=msgspec.json.encode(rows)[1:-1], next=more)
            case wire.OriginWanted(address, port):
                found = istio_origin.origin(self._translator, types, address, port, now)
                return wire.Answer(data=msgspec.json.encode(found))
            case _:
                assert_never(wanted)

    # -- tables

    def _wait(self, seconds: float) -> None:
        """Release the first table after so long, or when it was to be anyway."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is not None and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(due, self._release)

    def _release(self) -> None:
        """The first table waited long enough: what there is must do."""
        if self._config is not None and not self._released:
            self._released = True
            spawn("istio-release", self._translate())

    async def _hand_over(self, translation: Translation, config: Config) -> None:
        before = self.table
        self.table = IstioTable(
            translation.vservices,
            translation.names,
            translation.policies,
            translation.unsupported,
            config.versions,
            _outbound(translation),
        )
        same = before.mesh == self.table.mesh
        first = not self._applied
        if not same or first:  # the first one counts even if it is empty: it may end an older one
            self._applied = True
            await self.apply(self.table)
            changed = set(before.vservices).symmetric_difference(self.table.vservices)
            self.log(
                Event.ISTIO_APPLIED,
                version=max((version for _, version in config.versions), default=""),
                count=len(self.table.vservices),
                rows=len({item.name for item in changed}),
            )
        other = before.unsupported != self.table.unsupported
        if other or first:  # an agent before this one may have told others
            self.report(self.table.unsupported)
        if other:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.table.counts().items())
            self.log(Event.ISTIO_UNSUPPORTED, count=len(self.table.unsupported), text=kinds)
