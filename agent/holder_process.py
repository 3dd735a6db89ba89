"""Keeps the holder alive: finds one that an earlier daemon left, starts one, starts it again when it dies.

The daemon has its own copy of every notify descriptor and of the memfd with the calls under way, so
that a new holder can answer what the dead one had taken (MECHANISM: the programs merely wait a little).
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from appswitch.agent import holder_start
from appswitch.agent.journal import AppRecord
from appswitch.agent.logs import Event, Log
from appswitch.agent.processes import end_of, terminate
from appswitch.agent.seams import InnerApp
from appswitch.agent.supervisor import Supervisor
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import AppSwitchError, InvalidInput, Unavailable
from appswitch.interceptor import inject_wire as wire
from appswitch.interceptor.holder_client import (
    HolderClient,
    Holding,
    add_request,
    adopt_request,
    nest_request,
    remove_request,
)

START_DEADLINE: Final = 10.0
"""Seconds a new holder has until it answers (Python starts in 0.1 s on an idle machine), and a launch waits
for one that is stopped."""
ANSWER_DEADLINE: Final = 2.0
"""Seconds for one answer: the holder needs microseconds, unless it is stopped."""
APP: Final = "app-"
FLIGHT: Final = "flight-"
"""Names in systemd's store: with an AppId, and with an inode number."""


@dataclass(frozen=True, slots=True)
class HeldApp:
    """What a new holder is told of an app."""

    class_index: int
    ip: IPv4Address
    descriptor: int
    """Our copy of its notify descriptor."""


class Holder:
    """The holder as the daemon sees it."""

    def __init__(
        self,
        run_dir: Path,
        sock_map_pin: Path,
        enroll: Callable[[int], None],
        log: Log,
        supervisor: Supervisor,
        module: str = "appswitch.interceptor.inject",
        deadline: float = START_DEADLINE,
    ) -> None:
        """`enroll(pid)` puts a holder into its cgroup with our programs on it, before its next socket."""
        self._run_dir = run_dir
        self._pin = sock_map_pin
        self._module = module
        self._enroll = enroll
        self._log = log
        self._supervisor = supervisor
        self._deadline = deadline
        self._client: HolderClient | None = None
        self._turn = asyncio.Lock()
        """Held from a question to its answer."""
        self._pid = 0
        self._outdated = False
        """It is of an earlier release, and is to be replaced."""
        self._flight = -1
        self._flight_name = "none"
        self._unfinished: dict[str, int] = {}
        """Memfds of dead holders, by the name under which they are stored: calls that nobody has answered."""
        self._apps: dict[int, HeldApp] = {}
        self._inner: dict[int, InnerApp] = {}
        self._has: set[int] = set()
        """Apps that the holder had when we came to it."""
        self._ends = select.epoll()
        self._hung_up: Callable[[int], None] = lambda app_id: None
        self._ready = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        """If it is our child: to be reaped."""

    @staticmethod
    async def end_old(run_dir: Path) -> None:
        """End the holder of an earlier daemon, if there is one: its apps are to be forgotten."""
        try:
            with HolderClient.connect(run_dir) as client:
                holding = client.holding()
        except AppSwitchError:
            return
        holding.close()
        await terminate(holding.pid)

    @property
    def problem(self) -> str:
        """What is wrong with it, in words; empty: nothing."""
        if not self._ready.is_set():
            return "the holder is not running: socket() waits in empty namespaces"
        return "" if self._client is not None else "the holder did not answer in time: is it stopped?"

    def start(self, hung_up: Callable[[int], None], known: Iterable[AppRecord]) -> None:
        """Find the holder that an earlier daemon left, or have one started in the background.

        `hung_up(app id)` hears that the last process with an app's filter has ended.  `known` are the
        apps of the journal: where both daemon and holder died, their descriptors were stored.
        """
        self._hung_up = hung_up
        self._unfinished = self._supervisor.take(FLIGHT)
        self._take_stored({record.app.id: record for record in known})
        asyncio.get_running_loop().add_reader(self._ends.fileno(), self._read_ends)
        try:
            self._found(*holder_start.connect(self._run_dir))
        except AppSwitchError:
            pass  # none is there, or it is of no use
        self._watch = spawn("holder", self._keep())

    async def add(self, app_id: int, class_index: int, ip: IPv4Address, descriptor: int) -> None:
        """Hand an app over; takes `descriptor`.  Raises AppSwitchError: it is closed, nothing is held.

        While the holder is being started again, or is stopped, this waits.
        """
        try:
            await self._tell(add_request(app_id, class_index, ip), descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._keep_copy(app_id, HeldApp(class_index, ip, descriptor))
        self._supervisor.store(f"{APP}{app_id:08x}", descriptor)

    async def nest(self, inner: InnerApp) -> None:
        """Tell of an app inside another; waits like `add`.  Raises AppSwitchError: nothing is held."""
        await self._tell(_nest(inner))
        self._inner[inner.id] = inner

    def remember(self, inner: InnerApp) -> None:
        """The holder that an earlier daemon left knows it; a new one must be told."""
        self._inner[inner.id] = inner

    def alive(self, app_id: int) -> bool:
        """Whether a process with the app's filter lives."""
        held = self._apps.get(app_id)
        if held is None:
            return False
        poll = select.poll()
        poll.register(held.descriptor, 0)
        return not poll.poll(0)  # POLLHUP: nobody has the filter any more

    def remove(self, app_id: int) -> None:
        """The app has ended; idempotent.

        The holder sees that by itself where the app had a filter of its own: its descriptor hangs up.
        """
        if self._inner.pop(app_id, None) is not None and self._ready.is_set():
            spawn("unnest", self._tell(remove_request(app_id)), lambda name, error: None)
        if app_id in self._apps:
            self._supervisor.drop(f"{APP}{app_id:08x}")
        self._let_go(app_id)

    def _let_go(self, app_id: int) -> None:
        """Close our copy."""
        if (held := self._apps.pop(app_id, None)) is not None:
            self._ends.unregister(held.descriptor)
            os.close(held.descriptor)

    def _take_stored(self, known: Mapping[int, AppRecord]) -> None:
        """Copies that outlived an earlier daemon."""
        for text, descriptor in self._supervisor.take(APP).items():
            record = known.get(int(text, 16))
            if record is None:  # it ended as that daemon did
                os.close(descriptor)
                self._supervisor.drop(f"{APP}{text}")
            else:
                self._keep_copy(record.app.id, HeldApp(record.class_index, record.app.ip, descriptor))

    def _keep_copy(self, app_id: int, held: HeldApp) -> None:
        self._let_go(app_id)
        try:
            self._ends.register(held.descriptor, 0)  # EPOLLHUP alone: its calls are the holder's
        except OSError as error:
            os.close(held.descriptor)
            raise InvalidInput(f"not a notify descriptor: {error.strerror}") from error
        self._apps[app_id] = held

    def _read_ends(self) -> None:
        """Notify descriptors that hung up."""
        ended = {descriptor for descriptor, _ in self._ends.poll(0)}
        for app_id in [app_id for app_id, held in self._apps.items() if held.descriptor in ended]:
            self.remove(app_id)
            self._hung_up(app_id)

    async def close(self, *, end: bool) -> None:
        """Leave the holder alone, or end it (no app needs it)."""
        if self._watch is not None:
            await stop([self._watch])
        if end:
            await self._end()
        elif self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # it outlives us: subprocess shall not complain
        self._drop_client()
        for app_id in tuple(self._apps):
            self._let_go(app_id)
        asyncio.get_running_loop().remove_reader(self._ends.fileno())
        self._ends.close()
        for descriptor in (self._flight, *self._unfinished.values()):
            if descriptor >= 0:
                os.close(descriptor)
        if end:
            for name in (self._flight_name, *self._unfinished):
                self._supervisor.drop(FLIGHT + name)

    async def _tell(self, request: wire.Request, *descriptors: int) -> None:
        """Until the holder has taken it, or the deadline has passed.  Raises AppSwitchError."""
        try:
            async with asyncio.timeout(self._deadline):
                while True:
                    await self._ready.wait()
                    async with self._turn:
                        try:
                            return await self._ask(request, descriptors)
                        except Unavailable:
                            self._drop_client()
                        except asyncio.CancelledError:
                            self._drop_client()  # its answer, should it come, would be taken for the next
                            raise
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unavailable(self.problem or "the holder did not answer in time") from None

    async def _ask(self, request: wire.Request, descriptors: tuple[int, ...] = ()) -> None:
        """One question; a holder that does not answer holds up nobody else.  Raises AppSwitchError."""
        if self._client is None:
            self._client = HolderClient.connect(self._run_dir)
        client = self._client
        client.send(request, descriptors)
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(client.fileno(), answered.set)
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                await answered.wait()
        except TimeoutError:
            raise Unavailable("the holder did not answer in time") from None
        finally:
            loop.remove_reader(client.fileno())
        client.receive()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _set_flight(self, descriptor: int) -> None:
        """The holder of this memfd answers from now on; its predecessor's calls are to be finished."""
        name = str(os.fstat(descriptor).st_ino)
        if (kept := self._unfinished.pop(name, -1)) >= 0:
            os.close(kept)  # the same memfd
        if self._flight >= 0:
            self._unfinished[self._flight_name] = self._flight
        self._flight, self._flight_name = descriptor, name
        self._supervisor.store(FLIGHT + name, descriptor)

    def _found(self, client: HolderClient, holding: Holding) -> None:
        """Go on with the holder that is there."""
        self._take(client, holding)
        self._enroll(self._pid)
        self._log(Event.HOLDER_FOUND, pid=self._pid, apps=len(self._has))
        if not self._outdated and not self._unfinished and self._has >= self._apps.keys():
            self._ready.set()

    def _take(self, client: HolderClient, holding: Holding) -> None:
        """Keep copies of all that it holds."""
        for app in holding.apps:
            self._keep_copy(app.id, HeldApp(app.class_index, app.ip, app.fd))
        self._has = {app.id for app in holding.apps}
        self._set_flight(holding.flight)
        self._client, self._pid = client, holding.pid
        self._outdated = holding.revision != wire.REVISION

    async def _launch(self) -> None:
        """Start a holder.  Raises Unavailable."""
        self._process = holder_start.launch(self._module, self._run_dir, self._pin)
        try:
            self._enroll(self._process.pid)
        except OSError as error:
            raise Unavailable(f"cannot start the holder: {error.strerror}") from error
        self._take(*await holder_start.answers(self._process, self._run_dir, START_DEADLINE))

    async def _equip(self) -> None:
        """Give it what it lacks of what we have copies of, and have it finish its predecessors' calls.

        Raises AppSwitchError.
        """
        async with self._turn:
            for inner in tuple(self._inner.values()):
                await self._ask(_nest(inner))
            for app_id in tuple(self._apps.keys() - self._has):
                if (held := self._apps.get(app_id)) is None:
                    continue  # it has ended meanwhile
                try:  # from here on its waiting calls are answered
                    await self._ask(add_request(app_id, held.class_index, held.ip), (held.descriptor,))
                except Unavailable:
                    raise
                except AppSwitchError as error:  # that app's alone: the others get their sockets
                    self._log(Event.APP_REFUSED, app=f"{app_id:08x}", error=error)
            for name, descriptor in tuple(self._unfinished.items()):
                await self._ask(adopt_request(), (descriptor,))
                del self._unfinished[name]
                os.close(descriptor)
                self._supervisor.drop(FLIGHT + name)
        self._ready.set()

    async def _keep(self) -> None:
        """Start the holder, and again whenever it ends."""
        while True:
            if self._ready.is_set():
                await end_of(self._pid)
                self._ready.clear()
                self._reap()
                self._log(Event.HOLDER_LOST, pid=self._pid)
                self._drop_client()
            try:
                await self._provide()
            except (AppSwitchError, OSError) as error:
                # Of a connection that failed no late answer may be taken for the next one; and a holder that
                # died while it was told of the apps is found dead, and started again.
                self._drop_client()
                self._log(Event.HOLDER_LOST, error=error)
                await asyncio.sleep(1)

    async def _provide(self) -> None:
        """Until there is a holder that has all.  Raises AppSwitchError."""
        if self._outdated:
            self._outdated = False
            self._drop_client()
            await terminate(self._pid)
        elif self._client is None:  # one that was stopped when we came may go on
            try:
                self._found(*await asyncio.to_thread(holder_start.connect, self._run_dir))
            except Unavailable:
                pass
        if self._client is None:
            await self._launch()
            await self._equip()
            self._log(Event.HOLDER_STARTED, pid=self._pid, apps=len(self._apps))
        else:
            await self._equip()

    async def _end(self) -> None:
        """Ask it to end (SIGTERM), and wait for that; also one that has just been started."""
        started = self._process.pid if self._process is not None and self._process.poll() is None else 0
        for pid in {self._pid, started} - {0}:
            await terminate(pid)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()


def _nest(inner: InnerApp) -> wire.Request:
    return nest_request(inner.inside, inner.id, inner.class_index, inner.ip, inner.cgroup)
