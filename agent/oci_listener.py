"""RUN_DIR/oci.sock: where runc sends the descriptor of a container whose seccomp profile traps socket().

An unmodified image and command, with the node's sockets: `linux.seccomp.listenerPath` in place of `ax run`.
runc does not wait for an answer; the program's first socket() does, until the holder answers.  A container
that is refused gets ENOSYS from socket(): the descriptor is closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from appswitch.agent import oci
from appswitch.agent.channel import Peer, peer_of
from appswitch.agent.launch import Caller, Keeper
from appswitch.agent.logs import Event, Log
from appswitch.agent.seams import Networks
from appswitch.agent.tasks import spawn, stop
from appswitch.errors import AppSwitchError, Denied, InvalidInput, Unavailable

SOCKET_NAME: Final = "oci.sock"
DEADLINE: Final = 10.0
"""Seconds for a state to arrive."""
DROP_PAUSE: Final = 0.005
"""Seconds between two looks whether the runtime has dropped its own rights."""
DROP_LOOKS: Final = 400
"""Some are enough, unless the container gets no CPU: 2 seconds."""


class OciListener:
    """One task a container, from its state to its app."""

    def __init__(self, run_dir: Path, keeper: Keeper, networks: Networks, log: Log) -> None:
        self._path = run_dir / SOCKET_NAME
        self._keeper = keeper
        self._networks = networks
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen; root alone may connect.  Raises OSError."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(self._listener.fileno(), 0o600)
        self._listener.bind(str(self._path))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._accepting = spawn("oci", self._accept())

    async def close(self) -> None:
        """Stop listening; containers that were taken go on."""
        self._path.unlink(missing_ok=True)
        await stop([self._accepting, *self._tasks])
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # EMFILE and its kin pass
                self._log(Event.TASK_FAILED, task="oci", error=error.strerror)
                await asyncio.sleep(0.1)
                continue
            task = spawn("container", self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """One container's process."""
        try:
            with sock:
                if peer_of(sock).uid != 0:
                    raise Denied("only root may start containers so")
                data, descriptors = await asyncio.to_thread(receive, sock)
            with ExitStack() as undo:
                for descriptor in descriptors:
                    undo.callback(os.close, descriptor)
                await self._start(oci.decode_process_state(data), descriptors)
        except AppSwitchError as error:
            self._log(Event.APP_REFUSED, error=error)
        except OSError as error:
            self._log(Event.APP_REFUSED, error=error.strerror or error)

    async def _start(self, notified: oci.Notified, descriptors: list[int]) -> None:
        """Its app.  Raises AppSwitchError."""
        if notified.descriptor >= len(descriptors):
            raise InvalidInput(f"container {notified.container!r}: its descriptors did not arrive")
        wanted = oci.request(notified)
        pid = notified.pid
        try:
            caller = Caller(Peer(pid, 0, 0), os.pidfd_open(pid))
        except ProcessLookupError as error:
            raise Unavailable(f"container {notified.container!r}: process {pid} is gone") from error
        with ExitStack() as undo:
            undo.callback(os.close, caller.pidfd)
            await self._rights_are_dropped(notified)
            started = await self._keeper.start(wanted, caller)
            undo.pop_all()
        await self._keeper.inject(started.app, os.dup(descriptors[notified.descriptor]))

    async def _rights_are_dropped(self, notified: oci.Notified) -> None:
        """runc hands the descriptor over before its child gives up what the container shall not have.

        Raises Denied, Unavailable.
        """
        try:
            for _ in range(DROP_LOOKS):  # nothing tells of it
                if not self._networks.is_root_of_node(notified.pid):
                    return
                await asyncio.sleep(DROP_PAUSE)
        except OSError as error:
            raise Unavailable(f"container {notified.container!r}: process {notified.pid} is gone") from error
        raise Denied(
            f"container {notified.container!r} keeps CAP_SYS_ADMIN: the node's sockets would obey it; "
            "start it without, or with a network of its own and: ax attach"
        )


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """A state to its end, and the descriptors that came with it, the caller's to close.

    Blocks.  Raises InvalidInput (too long), OSError.
    """
    sock.settimeout(DEADLINE)
    found: list[int] = []
    data = b""
    try:
        while len(data) <= oci.MAX_STATE:
            chunk, descriptors, _, _ = socket.recv_fds(sock, 65_536, 16, socket.MSG_CMSG_CLOEXEC)
            found += descriptors
            data += chunk
            # runc does not close before its own end: what is whole is all
            if not chunk or oci.is_whole(data):
                return data, found
        raise InvalidInput(f"state of a container of more than {oci.MAX_STATE} bytes")
    except BaseException:
        for descriptor in found:
            os.close(descriptor)
        raise
