"""Keeps the holder alive: finds one that an earlier daemon left, starts one, starts it again when it dies.

The daemon has its own copy of every notify descriptor and of the memfd with the calls under way, so
that a new holder can answer what the dead one had taken (MECHANISM: the programs merely wait a little).
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from appswitch.agent.logs import Event, Log
from appswitch.agent.processes import end_of, terminate
from appswitch.agent.seams import InnerApp
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import AppSwitchError, InvalidInput, Unavailable
from appswitch.interceptor import inject_wire as wire
from appswitch.interceptor.holder_client import (
    HolderClient,
    Holding,
    add_request,
    nest_request,
    remove_request,
)

START_DEADLINE: Final = 10.0
"""Seconds a new holder has until it answers (Python starts in 0.1 s on an idle machine), and a launch waits
for one that is stopped."""
ANSWER_DEADLINE: Final = 2.0
"""Seconds for one answer: the holder needs microseconds, unless it is stopped."""
LOG_NAME: Final = "holder.log"


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
        module: str = "appswitch.interceptor.inject",
        deadline: float = START_DEADLINE,
    ) -> None:
        """`enroll(pid)` puts a holder into its cgroup with our programs on it, before its next socket."""
        self._run_dir = run_dir
        self._pin = sock_map_pin
        self._module = module
        self._enroll = enroll
        self._log = log
        self._deadline = deadline
        self._client: HolderClient | None = None
        self._turn = asyncio.Lock()
        """Held from a question to its answer."""
        self._pid = 0
        self._outdated = False
        """It is of an earlier release, and is to be replaced."""
        self._flight = -1
        self._apps: dict[int, HeldApp] = {}
        self._inner: dict[int, InnerApp] = {}
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

    def start(self, hung_up: Callable[[int], None]) -> None:
        """Find the holder that an earlier daemon left, or have one started in the background.

        `hung_up(app id)` hears that the last process with an app's filter has ended.
        """
        self._hung_up = hung_up
        asyncio.get_running_loop().add_reader(self._ends.fileno(), self._read_ends)
        try:
            self._found(*_open(self._run_dir))
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

    async def nest(self, inner: InnerApp) -> None:
        """Tell of an app inside another; waits like `add`.  Raises AppSwitchError: nothing is held."""
        await self._tell(nest_request(inner.inside, inner.id, inner.class_index, inner.ip, inner.cgroup))
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
        if (held := self._apps.pop(app_id, None)) is not None:
            self._ends.unregister(held.descriptor)
            os.close(held.descriptor)

    def _keep_copy(self, app_id: int, held: HeldApp) -> None:
        self.remove(app_id)
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
            self.remove(app_id)
        asyncio.get_running_loop().remove_reader(self._ends.fileno())
        self._ends.close()
        self._set_flight(-1)

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

    async def _ask(self, request: wire.Request, descriptors: tuple[int, ...]) -> None:
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
        if self._flight >= 0:
            os.close(self._flight)
        self._flight = descriptor

    def _found(self, client: HolderClient, holding: Holding) -> None:
        """Go on with the holder that is there."""
        self._take(client, holding)
        self._enroll(self._pid)
        if not self._outdated:
            self._ready.set()
        self._log(Event.HOLDER_FOUND, pid=self._pid, apps=len(self._apps))

    def _take(self, client: HolderClient, holding: Holding) -> None:
        """Keep copies of all that it holds."""
        for app in holding.apps:
            self._keep_copy(app.id, HeldApp(app.class_index, app.ip, app.fd))
        self._set_flight(holding.flight)
        self._client, self._pid = client, holding.pid
        self._outdated = holding.revision != wire.REVISION

    async def _launch(self) -> None:
        """Start a holder, give it what we have copies of, and have it finish its predecessor's calls."""
        kept, flight = dict(self._apps), self._flight
        self._flight = -1
        command = [
            sys.executable,
            "-P",
            "-m",
            self._module,
            str(self._run_dir),
            str(self._pin),
        ]
        try:
            # The holder outlives us: its own session, and no pipe of ours that would break under it.
            with (self._run_dir / LOG_NAME).open("ab") as log:
                process = subprocess.Popen(  # noqa: ASYNC220  fork and exec alone, at start
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
                )
            self._process = process
            self._enroll(process.pid)
            await self._answers(process)
            client = self._client
            assert client is not None
            for inner in self._inner.values():
                client.nest(inner.inside, inner.id, inner.class_index, inner.ip, inner.cgroup)
            for app_id, held in kept.items():  # from here on the waiting calls are answered
                client.add(app_id, held.class_index, held.ip, held.descriptor)
            if flight >= 0:
                client.adopt(flight)
        except OSError as error:
            raise Unavailable(f"cannot start the holder: {error.strerror}") from error
        finally:
            if flight >= 0:
                os.close(flight)
        self._ready.set()
        self._log(Event.HOLDER_STARTED, pid=self._pid, apps=len(kept))

    async def _answers(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the new holder answers.  Raises Unavailable."""
        try:
            async with asyncio.timeout(START_DEADLINE):
                while True:
                    if process.poll() is not None:
                        raise Unavailable(
                            f"the holder ended with status {process.returncode}: see {LOG_NAME}"
                        )
                    try:
                        return self._take(*_open(self._run_dir))
                    except Unavailable:
                        await asyncio.sleep(0.02)
        except TimeoutError:
            process.kill()
            raise Unavailable(f"the holder does not answer within {START_DEADLINE:g} s") from None

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
                if self._outdated:
                    self._outdated = False
                    self._drop_client()
                    await terminate(self._pid)
                else:  # one that was stopped when we came may go on
                    try:
                        self._found(*await asyncio.to_thread(_open, self._run_dir))
                        continue
                    except Unavailable:
                        pass
                await self._launch()
            except AppSwitchError as error:
                self._log(Event.HOLDER_LOST, error=error)
                await asyncio.sleep(1)

    async def _end(self) -> None:
        """Ask it to end (SIGTERM), and wait for that; also one that has just been started."""
        started = self._process.pid if self._process is not None and self._process.poll() is None else 0
        for pid in {self._pid, started} - {0}:
            await terminate(pid)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()


def _open(run_dir: Path) -> tuple[HolderClient, Holding]:
    """Connect to the holder that is there, and ask what it holds.  Raises AppSwitchError."""
    client = HolderClient.connect(run_dir)
    try:
        return client, client.holding()
    except AppSwitchError:
        client.close()
        raise
