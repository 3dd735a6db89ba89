"""Layouts shared with the BPF programs: each struct's format, size and field offsets.  Pure.

The C side is `bpf/abi.h`, which asserts the same sizes; a test compares every offset with the
object's own BTF.  Integers are in the machine's order, addresses in network order.
"""

from __future__ import annotations

import struct
from typing import Final

APP_EMPTY: Final = 1
"""The app lives in an empty namespace: only injected sockets are the mesh's."""
APP_HOLDER: Final = 2
"""The holder's own cgroup: an app is known by its socket only."""
APP_OWN_NETWORK: Final = 4
"""A pod: its addresses and ports are its own."""

PORT_OWN: Final = 2
"""Bit of a port's `dual`: it is a pod's, dialled at `ip`."""
APP_ENDED: Final = 8
"""Sockets that outlive the app reach nobody: its number of a class may be another's by now."""
APP_WAIT_SHIFT: Final = 16
"""Flags above: for how long connect() waits for a listener, in tenths of a second."""

KIND_NONE: Final = 0
KIND_BALANCE: Final = 1
KIND_REFUSE: Final = 2
KIND_DIRECT: Final = 3

POLICY_RANDOM: Final = 0
POLICY_ROUND_ROBIN: Final = 1

BACKEND_APP: Final = 1
BACKEND_ADDRESS: Final = 2

SERVICE_LIVE: Final = 1 << 32
SERVICE_PER_CLASS: Final = 1 << 33
SERVICE_PER_PEER: Final = 1 << 34
"""With SERVICE_PER_CLASS: its verdicts are by the number of the peer."""
SERVICE_CAPACITY_SHIFT: Final = 40

KEYS: Final = 131_072
SERVICES: Final = 131_072
VERDICTS: Final = 1_048_576
GROUPS: Final = 131_072
BACKENDS: Final = 524_288

APP: Final = struct.Struct("=II4sI")
"""id, class, ip, flags"""
KEY: Final = struct.Struct("=4sHBB")
"""ip, port (0: any), protocol, pad"""
GROUP: Final = struct.Struct("=IIBBHIQ4sI")
"""first, count, kind, policy, error, service, next, source_ip, tag (packing.key_tag)"""
GROUP_NEXT_OFFSET: Final = 16
BACKEND: Final = struct.Struct("=4sHBBII")
"""target (ADDRESS: network order; APP: the id in machine order), port, kind, spare, alias, threshold"""
SOCK: Final = struct.Struct("=II4sI4sHBB4sHBB4sHBBIIQQBBHBBHQ16s")
"""What a socket carries (sk_storage): owner {id, class, ip, flags}, then bound {ip, port, scope, set},
peer {ip, port, protocol, set}, local {ip, port, spare, set}, target app, service index,
its cookie, nanoseconds at start, v6only, dialling, real port, counted, own,
port of the kernel's choice, end of its wait, spare."""
SOCK_SIZE: Final = SOCK.size


def sock_value(app_id: int, class_index: int, ip: bytes, flags: int) -> bytes:
    """A fresh socket's storage: its owner and nothing else (the holder writes this at injection)."""
    return APP.pack(app_id, class_index, ip, flags).ljust(SOCK.size, b"\0")


PORT_KEY: Final = struct.Struct("=IHBB")
"""app, port, protocol, v6 (1: IPv6 alone; 2: at the app's own address alone)"""
PORT: Final = struct.Struct("=HBBiIIQ")
"""real, scope, dual (bits: 1 serves IPv4 too, 2 PORT_OWN), listening, ip, lasting (the pool's port, given
until the app ends, or 0), cookie"""
USAGE: Final = struct.Struct("=IIQ")
"""of an app: ports of the pool it holds, events told since, since when"""
REAL_KEY: Final = struct.Struct("=HBB")
"""real port, protocol, pad"""
REAL: Final = struct.Struct("=I4sHH4s")
"""app, ip, port, exposed (1: strangers may dial it), the address where (zeros: each of the node's)"""
POD: Final = struct.Struct("=4s4sQ")
"""its own address, the node's as seen from there, cookie of its network namespace"""
CROSSING_KEY: Final = struct.Struct("=4s4sHHHH")
"""from, to (addresses), from_port (0: datagrams), to_port, protocol, pad"""
CROSSING: Final = struct.Struct("=II4sHHQ")
"""app that dialled, app that was dialled, address and port it asked for, pad, the dialler's netns cookie"""
COUNT_KEY: Final = struct.Struct("=I4s4sHHB3s")
"""app that dialled, ip and port dialled, target (as in BACKEND), port there, kind, pad"""
COUNT_OUTSIDE: Final = 0
COUNT_APP: Final = BACKEND_APP
COUNT_ADDRESS: Final = BACKEND_ADDRESS
COUNT_LOOPBACK: Final = 3
COUNT: Final = struct.Struct("=QQQQQQQQQQQ")
"""opened, ended, failed, refused, timed out, unreachable, reset, sent, received (bytes), nanoseconds,
time of the last failure"""
FAILURE_KEY: Final = struct.Struct("=4sHH")
"""ip, port, pad"""
FAILURE: Final = struct.Struct("=QII")
"""nanoseconds, consecutive, errno"""
HOLE: Final = struct.Struct("=II")
"""port, active"""
WAIT_KEY: Final = struct.Struct("=4sHH")
"""address and port of the socket that waits, pad"""
WAIT: Final = struct.Struct("=II4sIHHBBBBI")
"""app, class, the address it asked for, app that it was led to, port asked for, real port,
astray, established, its own TCP_SYNCNT, pad, its own TCP_RTO_MAX_MS"""
LISTENER_KEY: Final = struct.Struct("=HH")
"""real port, slot"""
EVENT: Final = struct.Struct("=II4sIHHBBHQQ")
"""kind, app, ip, service, port, real, protocol, scope, error, cookie, time"""

LAYOUTS: Final = {
    "app": APP,
    "sock_state": SOCK,
    "key": KEY,
    "group": GROUP,
    "backend": BACKEND,
    "port_key": PORT_KEY,
    "port": PORT,
    "usage": USAGE,
    "real_key": REAL_KEY,
    "real": REAL,
    "pod": POD,
    "crossing_key": CROSSING_KEY,
    "crossing": CROSSING,
    "hole": HOLE,
    "wait_key": WAIT_KEY,
    "wait": WAIT,
    "listener_key": LISTENER_KEY,
    "count_key": COUNT_KEY,
    "count": COUNT,
    "failure_key": FAILURE_KEY,
    "failure": FAILURE,
    "event": EVENT,
}
"""Every struct of `bpf/abi.h` that Python packs or unpacks, by its name there."""
