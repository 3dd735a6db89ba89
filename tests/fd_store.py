"""systemd's side of the fd store, for real: `python fd_store.py SOCKET COMMAND…` keeps COMMAND running.

It starts COMMAND again whenever it dies, hands over what was stored, and removes what hangs up, as
systemd does (service.c: service_add_fd_store, on_fd_store_io).  SIGTERM ends COMMAND by SIGTERM; the exit
status is COMMAND's.  Each message is a line on standard error.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Sequence

_KCMP = {"x86_64": 312, "aarch64": 272}[platform.machine()]
FIRST = 3


def same(one: int, other: int) -> bool:
    """Whether two descriptors of ours are one open file (kcmp(2), KCMP_FILE)."""
    libc = ctypes.CDLL(None)
    pid = os.getpid()
    return int(libc.syscall(ctypes.c_long(_KCMP), pid, pid, 0, one, other)) == 0


class Store:
    """The descriptors of one service."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []
        self._hung_up = select.epoll()

    def handle(self, message: str, descriptors: list[int]) -> None:
        """One datagram of the service's."""
        words = dict(line.split("=", 1) for line in message.splitlines())
        name = words.get("FDNAME", "stored")
        if words.get("FDSTOREREMOVE") == "1":
            for each in [kept for kept in self.kept if kept[0] == name]:
                self._remove(each)
        if words.get("FDSTORE") == "1":
            for descriptor in descriptors:
                if not any(same(descriptor, kept) for _, kept in self.kept):
                    try:
                        self._hung_up.register(descriptor, 0)
                    except PermissionError:  # a file of a kind that cannot be watched
                        pass
                    self.kept.append((name, descriptor))
                    continue
                os.close(descriptor)
        else:
            for descriptor in descriptors:
                os.close(descriptor)

    def fileno(self) -> int:
        """Readable when something has hung up."""
        return self._hung_up.fileno()

    def sweep(self) -> None:
        """Drop what has hung up."""
        ended = {descriptor for descriptor, _ in self._hung_up.poll(0)}
        for each in [kept for kept in self.kept if kept[1] in ended]:
            self._remove(each)

    def _remove(self, each: tuple[str, int]) -> None:
        self.kept.remove(each)
        try:
            self._hung_up.unregister(each[1])
        except OSError:
            pass
        os.close(each[1])

    def spawn(self, command: Sequence[str], address: str) -> int:
        """COMMAND with all that is kept; its process id."""
        pid = os.fork()
        if pid:
            return pid
        try:
            count = len(self.kept)
            high = [
                os.dup2(kept, 500 + index, inheritable=False) for index, (_, kept) in enumerate(self.kept)
            ]
            for index, descriptor in enumerate(high):
                os.dup2(descriptor, FIRST + index)
            environment = {**os.environ, "NOTIFY_SOCKET": address}
            if count:
                names = ":".join(name for name, _ in self.kept)
                environment |= {
                    "LISTEN_PID": str(os.getpid()),
                    "LISTEN_FDS": str(count),
                    "LISTEN_FDNAMES": names,
                }
            os.closerange(FIRST + count, 500)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvpe(command[0], command, environment)
        finally:
            os._exit(127)


def main(address: str, command: Sequence[str]) -> int:
    """See above."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address)
    signals, wake = socket.socketpair()
    signals.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    store, stopping = Store(), False
    pid = store.spawn(command, address)
    while True:
        ready, _, _ = select.select([sock, signals, store], [], [])
        if sock in ready:
            data, descriptors, _, _ = socket.recv_fds(sock, 4096, 253)
            text = data.decode()
            store.handle(text, list(descriptors))
            print(" ".join(text.split()), file=sys.stderr, flush=True)
        if store in ready:
            store.sweep()
        if signals in ready and signal.SIGTERM in signals.recv(4096):
            stopping = True
            os.kill(pid, signal.SIGTERM)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if stopping or code in (64, 71):  # no use in trying again
                names = [name for name, _ in store.kept]
                print("stored at the end:", *names, file=sys.stderr, flush=True)
                os.unlink(address)
                return code & 0xFF
            pid = store.spawn(command, address)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
