"""Connect-wait in the kernel: the hole, and the one program that is the node's and not an app's.

Where nobody listens yet, the programs dial the hole (`bpf/wait.h`): a port of the pool that nobody is
ever given.  `ax_lookup` leads what arrives there to a listener.  It sees every SYN of the node's network
namespace, so it is attached only while an app may wait.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appswitch.errors import Exhausted
from appswitch.interceptor import abi, libbpf

LINK_NAME: Final = "lookup"
_SK_LOOKUP: Final = 36
"""enum bpf_attach_type"""
OWN_NETWORK: Final = Path("/proc/thread-self/ns/net")
_FIRST: Final = bytes(4)


class Waiting:
    """The hole and the link of one run directory; both outlive the daemon."""

    def __init__(self, maps: Mapping[str, libbpf.Map], program_fd: int, pin_dir: Path, network: Path) -> None:
        self._holes, self._pool = maps["holes"], maps["pool"]
        self._waits, self._waiters = maps["waits"], maps["waiters"]
        self._program_fd = program_fd
        self._pin = pin_dir / LINK_NAME
        self._network = network

    @property
    def hole(self) -> int:
        """The port, 0 as long as no app could wait."""
        port, _ = abi.HOLE.unpack(self._holes.get(_FIRST) or bytes(abi.HOLE.size))
        return int(port)

    def count(self) -> int:
        """Connections that wait, and those that have waited and live."""
        return len(list(self._waits.keys()))

    def admit(self, app_id: int) -> None:
        """This app may wait.  Raises OSError."""
        key = struct.pack("=I", app_id)
        if self._waiters.get(key) is None:  # else it has waited under an earlier daemon
            self._waiters.update(key, bytes(8))

    def forget(self, app_id: int) -> None:
        """The app has ended: a socket of its that still waits somewhere is led nowhere."""
        self._waiters.delete(struct.pack("=I", app_id))

    def start(self) -> None:
        """Apps may wait from now on; idempotent.  Raises Exhausted (the pool is empty), OSError."""
        port = self.hole
        if not port:
            if (taken := self._pool.pop()) is None:
                raise Exhausted("--connect-wait: no port of the pool is left for it; widen --ports")
            (port,) = struct.unpack("=I", taken)
        self._holes.update(_FIRST, abi.HOLE.pack(port, 1))
        namespace = os.open(self._network, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libbpf.link_pinned(self._program_fd, namespace, _SK_LOOKUP, self._pin)
        finally:
            os.close(namespace)

    def stop(self) -> None:
        """No app waits any more: nothing is attached to the node; the hole is kept.  Raises OSError."""
        if port := self.hole:
            self._holes.update(_FIRST, abi.HOLE.pack(port, 0))
        self._pin.unlink(missing_ok=True)
