"""`ax get sockets`: the service table joined with the kernel's inode numbers.

Sockets of apps live in the node's namespace (those of empty namespaces are injected), so the daemon's own
/proc/net lists them by their real port; a pod's are in its first process's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from appswitch.agent.resources import SocketView, socket_view
from appswitch.model import Protocol, Snapshot

_FILES: Final = (("tcp", Protocol.TCP), ("tcp6", Protocol.TCP), ("udp", Protocol.UDP), ("udp6", Protocol.UDP))
_LISTEN: Final = "0A"


def read_sockets(snapshot: Snapshot, proc: Path = Path("/proc/net")) -> list[SocketView]:
    """One row a service, in the order of app, protocol and port."""
    apps = {app.id: app for app in snapshot.apps}
    node = _inodes(proc)
    pods = {app.id: _inodes(Path(f"/proc/{app.pid}/net")) for app in snapshot.apps if app.own_ip is not None}
    return [
        socket_view(
            service,
            apps[service.app],
            snapshot.node,
            pods.get(service.app, node).get((service.protocol, service.real_port), 0),
        )
        for service in sorted(snapshot.services, key=lambda s: (s.app, s.protocol, s.port, s.real_port))
        if service.app in apps
    ]


def _inodes(proc: Path) -> dict[tuple[Protocol, int], int]:
    """By protocol and port."""
    found: dict[tuple[Protocol, int], int] = {}
    for name, protocol in _FILES:
        try:
            with (proc / name).open(encoding="ascii", errors="replace") as lines:
                for port, inode in listening(lines, protocol):
                    found.setdefault((protocol, port), inode)
        except OSError:  # no IPv6, or /proc hidden, or the pod's process gone: the inode is shown as 0
            continue
    return found


def listening(lines: Iterable[str], protocol: Protocol) -> Iterator[tuple[int, int]]:
    """(port, inode) of listening TCP or all UDP sockets from the text of /proc/net/{tcp,udp}{,6}.

    The kernel lists TCP listeners first (tcp_seq_start in net/ipv4/tcp_ipv4.c): reading ends there,
    so that a node with 100,000 connections is as quick as an idle one.
    """
    for count, line in enumerate(lines):
        words = line.split()
        if count == 0 or len(words) < 10:  # the heading
            continue
        if protocol is Protocol.TCP and words[3] != _LISTEN:
            return
        try:
            yield int(words[1].rpartition(":")[2], 16), int(words[9])
        except ValueError:
            continue
