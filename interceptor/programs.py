"""What the BPF object holds, as Python knows it: programs with their attach types, maps with their sizes."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from appswitch.interceptor import abi

OBJECT: Final = Path(__file__).resolve().parent / "_built" / "node.bpf.o"
PROGRAMS: Final = {
    # name: attach type, in linux/bpf.h's order of enum bpf_attach_type
    "ax_ingress": 0,
    "ax_sock_create": 2,
    "ax_sockops": 3,
    "ax_bind4": 8,
    "ax_bind6": 9,
    "ax_connect4": 10,
    "ax_connect6": 11,
    "ax_post_bind4": 12,
    "ax_post_bind6": 13,
    "ax_sendmsg4": 14,
    "ax_sendmsg6": 15,
    "ax_recvmsg4": 19,
    "ax_recvmsg6": 20,
    "ax_getsockopt": 21,
    "ax_setsockopt": 22,
    "ax_getpeername4": 29,
    "ax_getpeername6": 30,
    "ax_getsockname4": 31,
    "ax_getsockname6": 32,
    "ax_sock_release": 34,
}
OWN_PROGRAMS: Final = {
    # of an app with a network of its own: bpf/own.h
    "ax_own_ingress": 0,
    "ax_sock_create": 2,
    "ax_own_sockops": 3,
    "ax_own_bind4": 8,
    "ax_own_bind6": 9,
    "ax_connect4": 10,
    "ax_connect6": 11,
    "ax_own_bound4": 12,
    "ax_own_bound6": 13,
    "ax_sendmsg4": 14,
    "ax_sendmsg6": 15,
    "ax_recvmsg4": 19,
    "ax_recvmsg6": 20,
    "ax_own_peer4": 29,
    "ax_own_peer6": 30,
    "ax_own_release": 34,
}
WITHOUT_MAPS: Final = "ax_sock_create"
"""The one program that uses no map: any daemon's is as good."""
MAPS: Final = {
    # name: key size, value size
    "apps": (8, abi.APP.size),
    "sockets": (4, abi.SOCK_SIZE),
    "keys": (abi.KEY.size, 4),
    "services": (4, 8),
    "verdicts": (4, 8),
    "groups": (4, abi.GROUP.size),
    "backends": (4, abi.BACKEND.size),
    "locals": (4, 4),
    "living": (4, 4),
    "ports": (abi.PORT_KEY.size, abi.PORT.size),
    "reals": (abi.REAL_KEY.size, abi.REAL.size),
    "usages": (4, abi.USAGE.size),
    "dials": (8, 16),
    "flows": (16, 12),
    "pods": (4, abi.POD.size),
    "crossings": (abi.CROSSING_KEY.size, abi.CROSSING.size),
    "served": (8, abi.PORT_KEY.size),
    "holes": (4, abi.HOLE.size),
    "waiters": (4, 8),
    "waits": (abi.WAIT_KEY.size, abi.WAIT.size),
    "listeners": (abi.LISTENER_KEY.size, 8),
    "counts": (abi.COUNT_KEY.size, abi.COUNT.size),
    "shares": (4, 8),
    "others": (4, abi.COUNT.size),
    "failures": (abi.FAILURE_KEY.size, abi.FAILURE.size),
    "lost": (4, 8),
    "pool": (0, 4),
    "events": (0, 0),
}
MAPPED: Final = {
    "services": abi.SERVICES * 8,
    "verdicts": abi.VERDICTS * 8,
    "groups": abi.GROUPS * abi.GROUP.size,
    "backends": abi.BACKENDS * abi.BACKEND.size,
    "lost": mmap.PAGESIZE,
}
