"""systemd's side of the daemon: readiness, and the store for descriptors while no process of ours lives.

Without systemd everything here does nothing.  Sources: sd_notify(3), sd_listen_fds(3), systemd.service(5).
The protocol is one datagram a message, so that a library would be more than it replaces.
"""

from __future__ import annotations

import os
import re
import socket
from array import array
from collections.abc import MutableMapping
from typing import Final

_FIRST: Final = 3
"""SD_LISTEN_FDS_START"""
PATIENCE: Final = 1.0
"""Seconds for systemd to make room in its queue."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,60}")
"""What we call a descriptor; systemd allows more, and refuses the message for what it does not allow."""


class Supervisor:
    """A connection to whoever started us, and what it kept for us."""

    def __init__(self, address: str = "", kept: dict[str, int] | None = None) -> None:
        """`kept`: descriptors that an earlier daemon stored, by name; ours to close."""
        self._kept = kept or {}
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._sock: socket.socket | None = None
        if address:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.settimeout(PATIENCE)

    @staticmethod
    def from_environment(environment: MutableMapping[str, str]) -> Supervisor:
        """Takes what is meant for this process out of the environment: our children are not to have it."""
        address = environment.pop("NOTIFY_SOCKET", "")
        number = environment.pop("LISTEN_PID", "")
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "")
        kept: dict[str, int] = {}
        if number == str(os.getpid()) and count.isdecimal():
            words = names.split(":")
            for index in range(int(count)):
                descriptor, name = _FIRST + index, words[index] if index < len(words) else ""
                os.set_inheritable(descriptor, False)
                if not _NAME.fullmatch(name) or name in kept:
                    os.close(descriptor)  # nobody's, or a second one of that name
                else:
                    kept[name] = descriptor
        return Supervisor(address, kept)

    @property
    def stores(self) -> bool:
        """Whether descriptors outlive us."""
        return self._sock is not None

    def tell(self, *lines: str) -> None:
        """`READY=1`, `STOPPING=1`, `STATUS=…`; lost where nobody listens."""
        self._send(lines, ())

    def store(self, name: str, descriptor: int) -> None:
        """Keep a copy under this name, also beyond our death.

        systemd drops it by itself when it hangs up, as a notify descriptor does at its app's end.
        """
        assert _NAME.fullmatch(name), name
        self._send(("FDSTORE=1", f"FDNAME={name}"), (descriptor,))

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        self._send(("FDSTOREREMOVE=1", f"FDNAME={name}"), ())

    def take(self, prefix: str) -> dict[str, int]:
        """What was kept under names that begin so, by the rest of the name; the caller's to close."""
        names = [name for name in self._kept if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._kept.pop(name) for name in names}

    def forget(self) -> None:
        """Drop everything that is left of what was kept."""
        for name, descriptor in self._kept.items():
            os.close(descriptor)
            self.drop(name)
        self._kept.clear()

    def close(self) -> None:
        """Close our end; what is stored stays."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, lines: tuple[str, ...], descriptors: tuple[int, ...]) -> None:
        if self._sock is None:
            return
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
            self._sock.sendmsg(["\n".join(lines).encode()], rights, 0, self._address)
        except OSError:
            return  # systemd is gone or hangs: what it keeps is a second safety, and no reason to end
