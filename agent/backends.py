"""`ax get backends`: every backend, whether it is dialled now, and what became of its connections.  Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any, Final

from appswitch.agent.resource_backends import BackendRow, DialerView
from appswitch.agent.seams import CountersLike
from appswitch.interceptor.counters import Count, Edge, EdgeKind, Failure, Failures
from appswitch.interceptor.decision import AVOID, Ages
from appswitch.interceptor.index import Index, Key, Member, Rule
from appswitch.model import Protocol, Snapshot

TCP: Final = Protocol.TCP


def ages(failures: Failures) -> Ages:
    """What `decide()` takes."""
    return {key: failure.age for key, failure in failures.items()}


def gone(index: Index, edge: Edge) -> bool:
    """Whether nothing that is dialled leads there any more."""
    match edge.kind:
        case EdgeKind.APP:
            return not index.serves(edge.target, edge.backend_port, TCP)
        case EdgeKind.ADDRESS:
            target = index.target(Key(int(edge.address), edge.port, TCP))
            ends = [(m.address, m.port or edge.port) for m in target.members if not m.app] if target else []
            return _end(edge) not in ends
        case _:
            return False


def tidy(counters: CountersLike, snapshot: Snapshot) -> None:
    """Drop what nobody asks for any more.  System calls: for a thread."""
    index: list[Index] = []  # made when it is needed: hardly ever

    def is_gone(edge: Edge) -> bool:
        if not index:
            index.append(Index.of(snapshot))
        return gone(index[0], edge)

    counters.sweep({app.id for app in snapshot.apps}, is_gone)


def _end(edge: Edge) -> tuple[int, int]:
    return int(edge.backend), edge.backend_port


Counts = dict[int, Count]
"""By the AppId that dialled."""
Row = tuple[int, int, int, int, int]
"""Address and port dialled, AppId of the backend or 0, address and port of a backend that is no app."""


def rows(snapshot: Snapshot, counts: Mapping[Edge, Count], failures: Failures, now: int) -> list[BackendRow]:
    """Every backend of TCP, dialled or not, by service; then what is gone; then the sums.

    `now`: CLOCK_MONOTONIC in nanoseconds, when the counts were read.
    """
    index = Index.of(snapshot)
    left: dict[Row, Counts] = defaultdict(lambda: defaultdict(Count))
    sums: dict[EdgeKind, Counts] = defaultdict(dict)
    for edge, count in counts.items():
        if edge.kind is EdgeKind.APP:
            row: Row = (int(edge.address), edge.port, edge.target, 0, 0)
        elif edge.kind is EdgeKind.ADDRESS:
            row = (int(edge.address), edge.port, 0, *_end(edge))
        else:
            sums[edge.kind][edge.app] = count
            continue
        left[row][edge.app] += count
    found = []
    for key, name, member in sorted(_known(index, snapshot), key=lambda each: each[0]):
        port = member.port or key.port
        end = (0, 0) if member.app else (member.address, port)
        found.append(
            _row(
                service=_text(key.address, key.port),
                name=name,
                backend=_text(member.address, port),
                appid=f"{member.app:08x}" if member.app else "",
                state=_state(index, member, port, failures.get((member.address, port))),
                weight=member.weight,
                counts=left.pop((key.address, key.port, member.app, *end), {}),
                now=now,
            )
        )
    found += [_unknown(index, row, each, now) for row, each in sorted(left.items())]
    for kind, each in sums.items():
        found.append(
            _row(service=kind.value, name="", backend="", appid="", state="-", weight=0, counts=each, now=now)
        )
    return found


def _known(index: Index, snapshot: Snapshot) -> Iterator[tuple[Key, str, Member]]:
    for key in index.all_keys():
        target = index.target(key)
        if target and key.port and key.protocol == TCP and target.rule in (Rule.VSERVICE, Rule.SERVICE):
            yield from ((key, target.name, member) for member in target.members)
    for app, port in sorted({(s.app, s.port) for s in snapshot.services if s.protocol == TCP}):
        ip = int(index.apps[app].ip)
        if index.listens(app, port, TCP) and index.target(Key(ip, port, TCP)) is None:
            yield Key(ip, port, TCP), "", Member(app, ip, port, 1, 0, None)


def _unknown(index: Index, row: Row, counts: Counts, now: int) -> BackendRow:
    """Dialled under a name that is no service's: a backend that is gone, or an app's real port."""
    address, port, app, ip, real = row
    known = index.apps.get(app)
    state = "ok" if known and index.behind_real_port(address, port, TCP) else "gone"
    backend = _text(int(known.ip), port) if known else _text(ip, real) if ip else ""
    appid = f"{app:08x}" if app else ""
    service = _text(address, port)
    return _row(
        service=service, name="", backend=backend, appid=appid, state=state, weight=0, counts=counts, now=now
    )


def _state(index: Index, member: Member, port: int, failure: Failure | None) -> str:
    if not member.weight:
        return "weight 0"
    if member.app:
        return "ok" if index.listens(member.app, port, TCP) else "not listening"
    if failure is not None and failure.age < AVOID:
        return f"failed {failure.age:.1f} s ago"
    return "ok"


def _row(
    *, service: str, name: str, backend: str, appid: str, state: str, weight: int, counts: Counts, now: int
) -> BackendRow:
    total = sum(counts.values(), Count())
    return BackendRow(
        service=service,
        name=name,
        backend=backend,
        appid=appid,
        state=state,
        weight=weight,
        last_failure=max(now - total.last_failure, 0) / 1e9 if total.last_failure else None,
        dialers=[DialerView(appid=f"{app:08x}", **_figures(count)) for app, count in sorted(counts.items())],
        **_figures(total),
    )


def _figures(count: Count) -> dict[str, Any]:
    return {
        "opened": count.opened,
        "active": count.active,
        "failed": count.failed,
        "refused": count.refused,
        "timed_out": count.timed_out,
        "unreachable": count.unreachable,
        "reset": count.reset,
        "sent": count.sent,
        "received": count.received,
        "seconds": count.nanoseconds / 1e9,
    }


def _text(address: int, port: int) -> str:
    return f"{IPv4Address(address)}:{port}"
