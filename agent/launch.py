"""The launch socket: one task per `ax run`, from its hello to its exec.

The dialogue, over Unix SOCK_SEQPACKET at RUN_DIR/daemon.sock (anyone may; the kernel names the caller):

    launcher                                   daemon
    hello (JSON, see hello.py) + a socket →    (whose: `Caller.probe`)
                                          ←    ok + lines KEY=VALUE, or error + code= and message=
    "filter" + notify descriptor          →    (after inject=1; "nested" inside another `ax run`)
                                          ←    go
    exec

Every wait has a deadline, and whatever goes wrong is one event and costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from appswitch.agent import hello
from appswitch.agent.channel import Channel, Packet, Peer
from appswitch.agent.logs import Event, Log
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import AppSwitchError, Denied, Exhausted, InvalidInput, Unavailable, Unsupported
from appswitch.model import App

SOCKET_NAME: Final = "daemon.sock"
DEADLINE: Final = 10.0
"""Seconds a launcher has for each of its messages."""
MAX_LAUNCHERS: Final = 512
"""Dialogues at once; further launchers wait in the listen queue."""
MAX_OF_USER: Final = 64
"""Of these, those of one user but root: nobody keeps the others out by connections that say nothing."""
COMPLAINTS: Final = 10
"""Refusals logged each second of one user, so that none fills the disk; more are counted."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that asks; it is the one that will exec."""

    peer: Peer
    pidfd: int
    """The app keeper's to close, once `start()` has returned."""
    probe: int = -1
    """A socket that it has just made, or -1: whose it is tells whether an app around it has a filter."""


@dataclass(frozen=True, slots=True)
class Started:
    """What the launcher must know."""

    app: App
    resolv: str
    """Path to mount over /etc/resolv.conf; "" for none."""
    user: tuple[int, int] | None
    """uid and gid to become, for `--user`."""


class Keeper(Protocol):
    """What keeps the apps (`lifecycle.Apps`)."""

    async def start(self, request: hello.Request, caller: Caller) -> Started:
        """Admit an app; when this returns, its class is in the tables.

        Takes the pidfd.  Raises AppSwitchError: then nothing has changed, and the pidfd is the caller's.
        """

    async def inject(self, app: App, descriptor: int) -> None:
        """Sockets for an app in an empty namespace; takes the notify descriptor.  Raises AppSwitchError."""

    def died_early(self, app: App) -> None:
        """The launcher went away before exec."""


class LaunchServer:
    """Listens on RUN_DIR/daemon.sock."""

    def __init__(self, run_dir: Path, keeper: Keeper, log: Log, deadline: float = DEADLINE) -> None:
        self._path = run_dir / SOCKET_NAME
        self._keeper = keeper
        self._log = log
        self._deadline = deadline
        self._room = asyncio.Semaphore(MAX_LAUNCHERS)
        self._by_user: Counter[int] = Counter()
        self._second = 0
        self._complaints: Counter[int] = Counter()
        """By uid, in this second."""
        self._dialogues: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen.  Raises OSError.  The run directory's lock says that the old socket is nobody's."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._path.chmod(0o666)
        self._listener.listen(MAX_LAUNCHERS)
        self._listener.setblocking(False)
        self._accepting = spawn("launch", self._accept())

    async def close(self) -> None:
        """Stop listening and end the dialogues: their launchers say that the daemon has gone."""
        self._path.unlink(missing_ok=True)
        if self._accepting is not None:
            await stop([self._accepting, *self._dialogues])
            self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # EMFILE and its kin pass
                self._room.release()
                self._log(Event.TASK_FAILED, task="launch", error=error.strerror)
                await asyncio.sleep(0.1)
                continue
            dialogue = spawn("launcher", self._serve(Channel(sock)))
            self._dialogues.add(dialogue)
            dialogue.add_done_callback(self._done)

    def _done(self, dialogue: asyncio.Task[None]) -> None:
        self._dialogues.discard(dialogue)
        self._room.release()

    async def _serve(self, channel: Channel) -> None:
        """One launcher."""
        peer = channel.peer()
        self._by_user[peer.uid] += 1
        try:
            if peer.uid and self._by_user[peer.uid] > MAX_OF_USER:
                raise Exhausted(f"user {peer.uid} has {MAX_OF_USER} launches under way: try again")
            await self._dialogue(channel, peer)
        except TimeoutError:
            self._complain(Event.HELLO_TIMEOUT, peer)
            refuse(channel, Unavailable(f"no message within {self._deadline:g} s"))
        except InvalidInput as error:
            self._complain(Event.HELLO_MALFORMED, peer, error=error)
            refuse(channel, error)
        except AppSwitchError as error:
            self._complain(Event.APP_REFUSED, peer, error=error)
            refuse(channel, error)
        except Exception as error:  # noqa: BLE001  the task's outer edge: one launch fails, the daemon goes on
            self._log(Event.TASK_FAILED, task="launcher", pid=peer.pid, error=repr(error))
            refuse(channel, AppSwitchError("internal error; see the daemon's log"))
        finally:
            channel.close(lambda: self._closed(peer.uid))

    def _closed(self, uid: int) -> None:
        """A dialogue is over, also what its connection still held: whose closing takes long is counted."""
        self._by_user[uid] -= 1
        if not self._by_user[uid]:
            del self._by_user[uid]

    def _complain(self, event: Event, peer: Peer, **fields: object) -> None:
        """Log it, unless this user has been complained of enough in this second: then it is counted."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            for uid, count in self._complaints.items():
                if count > COMPLAINTS:
                    self._log(Event.REFUSALS_COUNTED, uid=uid, count=count - COMPLAINTS)
            self._second = second
            self._complaints.clear()
        self._complaints[peer.uid] += 1
        if self._complaints[peer.uid] <= COMPLAINTS:
            self._log(event, pid=peer.pid, uid=peer.uid, **fields)

    async def _dialogue(self, channel: Channel, peer: Peer) -> None:
        first = await channel.receive(hello.MAX_HELLO, self._deadline)
        with ExitStack() as undo:
            undo.callback(first.close)
            if not first.data:
                return
            started = await self._start(channel, peer, first)
        if started is None:
            return
        if not channel.send(reply(started)):
            self._keeper.died_early(started.app)
            return
        if started.app.new_netns:
            try:
                await self._inject(channel, started.app)
            except BaseException:
                self._keeper.died_early(started.app)
                raise

    async def _start(self, channel: Channel, peer: Peer, first: Packet) -> Started | None:
        """None: the launcher has gone.  Raises AppSwitchError."""
        request = hello.decode(first.data)
        if peer.pid <= 0:
            raise Denied("the daemon does not see this process: it must share the pid namespace (hostPID)")
        try:
            caller = Caller(peer, channel.pidfd(peer.pid), *first.descriptors[:1])
        except ProcessLookupError:
            return None
        with ExitStack() as undo:
            undo.callback(os.close, caller.pidfd)
            started = await self._keeper.start(request, caller)
            undo.pop_all()
        return started

    async def _inject(self, channel: Channel, app: App) -> None:
        """Take over the filter's notify descriptor, then let the launcher exec."""
        packet = await channel.receive(256, self._deadline)
        if not packet.data:
            self._keeper.died_early(app)
            return
        match packet.data, packet.descriptors:
            case b"filter", (descriptor,) if packet.later is None or packet.is_notify():
                await self._keeper.inject(app, descriptor)
            case b"nested", () if app.inside:  # there can be one listener: the app around it has it
                pass
            case b"nested", ():
                raise Unsupported(
                    "another program traps system calls here, and there can be one only: "
                    "run with --new-netns=false"
                )
            case _:
                packet.close()
                raise InvalidInput("expected 'filter' with one descriptor, or 'nested'")
        if not channel.send("go\n"):
            self._keeper.died_early(app)


def reply(started: Started) -> str:
    """The daemon's answer to a hello that it admits."""
    lines = ["ok", f"id={started.app.id_text}", f"ip={started.app.ip}"]
    if started.resolv:
        lines.append(f"resolv={started.resolv}")
    if started.app.new_netns:
        lines.append("inject=1")
    if started.user is not None:
        lines += [f"uid={started.user[0]}", f"gid={started.user[1]}"]
    return "\n".join(lines) + "\n"


def refuse(channel: Channel, error: AppSwitchError) -> None:
    """The daemon's answer to one that it does not: the launcher prints the line and exits with the code."""
    message = " ".join(str(error).split())[:1000]
    channel.send(f"error\ncode={error.exit_code}\nmessage={message}\n")
