"""Keeps the holder alive: finds one that an earlier daemon left, starts one, starts it again when it dies.

The daemon has its own copy of every notify descriptor and of the memfd with the calls under way, so
that a new holder can answer what the dead one had taken (MECHANISM: the programs merely wait a little).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from appswitch.agent.logs import Event, Log
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import AppSwitchError, InvalidInput, Unavailable
from appswitch.interceptor.holder_client import HolderClient

START_DEADLINE: Final = 10.0
"""Seconds a new holder has until it answers: Python starts in 0.1 s on an idle machine."""
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
    ) -> None:
        """`enroll(pid)` puts a holder into its cgroup with our programs on it, before its next socket."""
        self._run_dir = run_dir
        self._pin = sock_map_pin
        self._module = module
        self._enroll = enroll
        self._log = log
        self._client: HolderClient | None = None
        self._pid = 0
        self._flight = -1
        self._apps: dict[int, HeldApp] = {}
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
        await _terminate(holding.pid)

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
            self._connect()
        except AppSwitchError:
            pass  # none is there, or it is of no use
        else:
            self._enroll(self._pid)
            self._ready.set()
            self._log(Event.HOLDER_FOUND, pid=self._pid, apps=len(self._apps))
        self._watch = spawn("holder", self._keep())

    async def add(self, app_id: int, class_index: int, ip: IPv4Address, descriptor: int) -> None:
        """Hand an app over; takes `descriptor`.  Raises AppSwitchError: it is closed, nothing is held.

        While the holder is being started again, this waits.
        """
        try:
            async with asyncio.timeout(START_DEADLINE):
                await self._ready.wait()
            self._hand_over(app_id, class_index, ip, descriptor)
        except TimeoutError:
            os.close(descriptor)
            raise Unavailable("the holder cannot be started: see the daemon's log") from None
        except BaseException:
            os.close(descriptor)
            raise
        self._keep_copy(app_id, HeldApp(class_index, ip, descriptor))

    def alive(self, app_id: int) -> bool:
        """Whether a process with the app's filter lives."""
        held = self._apps.get(app_id)
        if held is None:
            return False
        poll = select.poll()
        poll.register(held.descriptor, 0)
        return not poll.poll(0)  # POLLHUP: nobody has the filter any more

    def remove(self, app_id: int) -> None:
        """The app has ended, as the holder sees by itself (its descriptor hangs up); idempotent."""
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
        if self._client is not None:
            self._client.close()
            self._client = None
        for app_id in tuple(self._apps):
            self.remove(app_id)
        asyncio.get_running_loop().remove_reader(self._ends.fileno())
        self._ends.close()
        self._set_flight(-1)

    def _hand_over(self, app_id: int, class_index: int, ip: IPv4Address, descriptor: int) -> None:
        if self._client is None:  # its last answer was late
            self._client = HolderClient.connect(self._run_dir)
        try:
            self._client.add(app_id, class_index, ip, descriptor)
        except Unavailable:
            self._client.close()
            self._client = None
            raise

    def _ask(self) -> HolderClient:
        if self._client is None:
            raise Unavailable("the holder is being started again: try once more")
        return self._client

    def _set_flight(self, descriptor: int) -> None:
        if self._flight >= 0:
            os.close(self._flight)
        self._flight = descriptor

    def _connect(self) -> None:
        """Connect, and take copies of all that it holds.  Raises AppSwitchError."""
        client = HolderClient.connect(self._run_dir)
        try:
            holding = client.holding()
        except AppSwitchError:
            client.close()
            raise
        for app in holding.apps:
            self._keep_copy(app.id, HeldApp(app.class_index, app.ip, app.fd))
        self._set_flight(holding.flight)
        self._client, self._pid = client, holding.pid

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
            for app_id, held in kept.items():
                self._ask().add(app_id, held.class_index, held.ip, held.descriptor)
            if flight >= 0:
                self._ask().adopt(flight)
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
                        self._connect()
                        return
                    except Unavailable:
                        await asyncio.sleep(0.02)
        except TimeoutError:
            process.kill()
            raise Unavailable(f"the holder does not answer within {START_DEADLINE:g} s") from None

    async def _keep(self) -> None:
        """Start the holder, and again whenever it ends."""
        while True:
            if self._ready.is_set():
                await _end_of(self._pid)
                self._ready.clear()
                self._reap()
                self._log(Event.HOLDER_LOST, pid=self._pid)
                if self._client is not None:
                    self._client.close()
                    self._client = None
            try:
                await self._launch()
            except AppSwitchError as error:
                self._log(Event.HOLDER_LOST, error=error)
                await asyncio.sleep(1)

    async def _end(self) -> None:
        """Ask it to end (SIGTERM), and wait for that; also one that has just been started."""
        started = self._process.pid if self._process is not None and self._process.poll() is None else 0
        for pid in {self._pid, started} - {0}:
            await _terminate(pid)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()


async def _terminate(pid: int) -> None:
    """SIGTERM, and SIGKILL if that has not worked within two seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            async with asyncio.timeout(2):
                return await _end_of(pid)
        except ProcessLookupError:
            return
        except TimeoutError:
            continue


async def _end_of(pid: int) -> None:
    """Wait for a process's end, be it our child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
