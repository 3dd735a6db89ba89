"""Tables of `ax get`: the manual's columns, and `-o wide|json|yaml|name`.  Pure.

The manual's own spacing did not survive its typesetting.  Ours: each column as wide as its widest cell,
two spaces between, a line of dashes as wide as the table, nothing after the last cell of a line.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appswitch.agent import resources as view
from appswitch.agent.resource_backends import BackendRow
from appswitch.agent.resource_bpf import BpfView
from appswitch.agent.resource_policies import PolicyView
from appswitch.agent.resource_unsupported import UnsupportedView
from appswitch.agent.resource_xds import ClusterView, EndpointView, ListenerView, RouteView, XdsView

FORMATS: Final = ("table", "wide", "json", "yaml", "name")


@dataclass(frozen=True, slots=True)
class Column:
    """A title and how a resource fills the cell."""

    title: str
    cell: Callable[[Any], str]
    wide: bool = False
    """Shown with `-o wide` only."""


def attribute(title: str, name: str, wide: bool = False) -> Column:
    """A column that shows one attribute as text."""
    return Column(title, lambda row: str(getattr(row, name)), wide)


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type of `ax get`."""

    name: str
    """Plural; also the last part of its REST path."""
    view: type[Any]
    columns: tuple[Column, ...]
    identity: Callable[[Any], str]
    """What `-o name` prints."""


def _list(parts: Sequence[str]) -> str:
    return "[" + " ".join(parts) + "]"


def _backends(row: view.VServiceView) -> str:
    return _list([f"{b.ip}:{b.port}" if b.port else b.ip for b in row.backends])


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _size(value: int) -> str:
    """Bytes as people read them: three digits, powers of 1024."""
    size, units = float(value), iter(("", "K", "M", "G", "T", "P", "E"))
    unit = next(units)
    while size >= 1000:
        size, unit = size / 1024, next(units)
    return f"{size:.3g}{unit}" if unit else str(value)


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit} ago"
    return f"{seconds:.1f}s ago"


def _age(seconds: float | None) -> str:
    return _ago(seconds).removesuffix(" ago")


def _made_by(kind: str) -> Callable[[Any], str]:
    """The Istio object of a row as `istioctl` writes it, NAME.NAMESPACE, if it is of that kind."""

    def cell(row: Any) -> str:
        its_kind, _, path = row.object.partition(" ")
        namespace, _, name = path.partition("/")
        return f"{name}.{namespace}" if its_kind == kind else "-"

    return cell


def _domains(row: RouteView) -> str:
    """The first ones; all of them with `-o json`."""
    return ", ".join(row.domains[:2]) + (f" + {len(row.domains) - 2} more" if row.domains[2:] else "")


def _per_run(row: BpfView) -> str:
    return f"{(row.nanoseconds or 0) / row.runs:.0f}" if row.runs else "-"


_CAME: Final = (
    Column("VERSION", lambda row: row.version or "-", wide=True),
    Column("AGE", lambda row: _age(row.seconds), wide=True),
)
"""Of what an xDS resource brought."""

KINDS: Final = (
    Kind(
        "apps",
        view.AppView,
        (
            Column("NAME", lambda row: row.name or f"<{row.uid}>"),
            attribute("APPID", "appid"),
            attribute("NODEID", "nodeid"),
            attribute("CLUSTER", "cluster"),
            attribute("APPIP", "appip"),
            attribute("DRIVER", "driver"),
            Column("LABELS", lambda row: ",".join(row.labels)),
            Column("ZONES", lambda row: _list(row.zones)),
            attribute("PID", "pid", wide=True),
            attribute("USER", "user", wide=True),
            attribute("NETNS", "network", wide=True),
            Column("EXPOSES", lambda row: ",".join(row.exposes) or "-", wide=True),
            Column("NAMESPACE", lambda row: row.namespace or "-", wide=True),
            Column("SERVICEACCOUNT", lambda row: row.service_account or "-", wide=True),
        ),
        lambda row: str(row.appid),
    ),
    Kind(
        "servers",
        view.ServerView,
        (
            attribute("NODEID", "nodeid"),
            attribute("CLUSTER", "cluster"),
            attribute("APPID", "appid"),
            attribute("PROTO", "proto"),
            attribute("SERVICEADDR", "serviceaddr"),
            attribute("IPV4ADDR", "ipv4addr"),
            Column("NAME", lambda row: row.name or "-", wide=True),
            Column("LABELS", lambda row: ",".join(row.labels), wide=True),
        ),
        lambda row: str(row.serviceaddr),
    ),
    Kind(
        "sockets",
        view.SocketView,
        (
            attribute("ID", "id"),
            attribute("NODEID", "nodeid"),
            attribute("APPID", "appid"),
            attribute("INODE", "inode"),
            attribute("PROTO", "proto"),
            attribute("FLAGS", "flags"),
            attribute("BINDIP", "bindip"),
            attribute("BACKLOG", "backlog"),
            attribute("REALPORT", "real_port", wide=True),
            attribute("COOKIE", "cookie", wide=True),
        ),
        lambda row: str(row.id),
    ),
    Kind(
        "vservices",
        view.VServiceView,
        (
            attribute("VSNAME", "name"),
            attribute("VSTYPE", "type"),
            Column("VSIP", lambda row: ",".join(row.ips)),
            attribute("VSPORTS", "ports_text"),
            Column("VSBACKENDIPS", _backends),
            attribute("PROTO", "proto", wide=True),
            Column("WEIGHTS", lambda row: _list([str(b.weight) for b in row.backends]), wide=True),
            Column("SOURCEIP", lambda row: row.source_ip or "-", wide=True),
            attribute("ORIGIN", "origin", wide=True),
        ),
        lambda row: str(row.name),
    ),
    Kind(
        "backends",
        BackendRow,
        (
            attribute("SERVICE", "service"),
            Column("NAME", lambda row: row.name or "-", wide=True),
            Column("BACKEND", lambda row: row.backend or "-"),
            Column("APPID", lambda row: row.appid or "-"),
            attribute("STATE", "state"),
            attribute("WEIGHT", "weight"),
            attribute("OPENED", "opened"),
            attribute("ACTIVE", "active"),
            attribute("REFUSED", "refused"),
            attribute("TIMEDOUT", "timed_out"),
            attribute("RESET", "reset"),
            attribute("UNREACHABLE", "unreachable", wide=True),
            attribute("FAILED", "failed", wide=True),
            Column("SENT", lambda row: _size(row.sent)),
            Column("RECEIVED", lambda row: _size(row.received)),
            Column("SECONDS", lambda row: f"{row.seconds:.1f}", wide=True),
            Column("DIALERS", lambda row: ",".join(each.appid for each in row.dialers) or "-", wide=True),
            Column("LASTFAILURE", lambda row: _ago(row.last_failure)),
        ),
        lambda row: f"{row.service}/{row.backend}" if row.backend else str(row.service),
    ),
    Kind(
        "bpf",
        BpfView,
        (
            attribute("KIND", "kind"),
            attribute("NAME", "name"),
            attribute("ID", "id"),
            Column("ATTACHED", lambda row: _number(row.attached)),
            Column("RUNS", lambda row: _number(row.runs)),
            Column("NANOSECONDS", lambda row: _number(row.nanoseconds)),
            Column("NS/RUN", _per_run),
            Column("ENTRIES", lambda row: _number(row.entries)),
            Column("CAPACITY", lambda row: _number(row.capacity)),
            Column("MEMORY", lambda row: _size(row.memory)),
        ),
        lambda row: str(row.name),
    ),
    Kind(
        "policies",
        PolicyView,
        (
            attribute("ADDRESS", "address"),
            Column("PORT", lambda row: str(row.port or "*")),
            attribute("MTLS", "mtls"),
            Column("ACTION", lambda row: row.action or "-"),
            Column("RULE", lambda row: row.rule or "-"),
            Column("FILTER", lambda row: str(row.filter or "-"), wide=True),
            attribute("CONDITION", "condition", wide=True),
        ),
        lambda row: f"{row.address}:{row.port or '*'}/{row.rule}",
    ),
    Kind(
        "unsupported",
        UnsupportedView,
        (
            attribute("FIELD", "field"),
            attribute("RESOURCE", "resource"),
            Column("OBJECT", lambda row: row.object or "-"),
            Column("INSTEAD", lambda row: row.instead or "-"),
            Column("SINCE", lambda row: _ago(row.seconds)),
        ),
        lambda row: f"{row.field}/{row.resource}",
    ),
    Kind(
        "clusters",
        ClusterView,
        (
            attribute("SERVICE FQDN", "service_fqdn"),
            Column("PORT", lambda row: str(row.port or "-")),
            Column("SUBSET", lambda row: row.subset or "-"),
            Column("DIRECTION", lambda row: row.direction or "-"),
            attribute("TYPE", "type"),
            Column("DESTINATION RULE", _made_by("destination-rule")),
            attribute("POLICY", "policy", wide=True),
            attribute("NAME", "name", wide=True),
            *_CAME,
        ),
        lambda row: str(row.name),
    ),
    Kind(
        "endpoints",
        EndpointView,
        (
            attribute("ENDPOINT", "endpoint"),
            attribute("STATUS", "status"),
            attribute("CLUSTER", "cluster"),
            attribute("WEIGHT", "weight"),
            attribute("PRIORITY", "priority"),
            Column("LOCALITY", lambda row: row.locality or "-"),
            attribute("LOCALITY WEIGHT", "locality_weight", wide=True),
            *_CAME,
        ),
        lambda row: str(row.endpoint),
    ),
    Kind(
        "listeners",
        ListenerView,
        (
            Column("ADDRESS", lambda row: row.address or "-"),
            Column("PORT", lambda row: str(row.port or "-")),
            attribute("MATCH", "match"),
            attribute("DESTINATION", "destination"),
            Column("OBJECT", lambda row: row.object or "-", wide=True),
            attribute("NAME", "name", wide=True),
            *_CAME,
        ),
        lambda row: str(row.name),
    ),
    Kind(
        "routes",
        RouteView,
        (
            attribute("NAME", "name"),
            attribute("VHOST NAME", "vhost"),
            Column("DOMAINS", _domains),
            attribute("MATCH", "match"),
            Column("VIRTUAL SERVICE", _made_by("virtual-service")),
            Column(
                "CLUSTERS",
                lambda row: ",".join(f"{part.cluster}={part.weight}" for part in row.clusters) or "-",
                wide=True,
            ),
            *_CAME,
        ),
        lambda row: f"{row.name}/{row.vhost}",
    ),
    Kind(
        "xds",
        XdsView,
        (
            Column("TYPE", lambda row: row.type.upper()),
            Column("NAME", lambda row: row.name or "-"),
            attribute("STATUS", "status"),
            Column("VERSION", lambda row: row.version or "-"),
            Column("AGE", lambda row: _age(row.seconds)),
            Column("ERROR", lambda row: row.error or "-", wide=True),
            Column("ERROR VERSION", lambda row: row.error_version or "-", wide=True),
            Column("ERROR AGE", lambda row: _age(row.error_seconds), wide=True),
        ),
        lambda row: f"{row.type}/{row.name}",
    ),
    Kind(
        "proxies",
        view.ProxyView,
        (
            attribute("ID", "id"),
            attribute("PROTO", "proto"),
            attribute("LISTENER", "listener"),
            Column("DIALERS", lambda row: _list(row.dialers)),
        ),
        lambda row: str(row.id),
    ),
    Kind(
        "drivers",
        view.DriverView,
        (
            attribute("DRIVER", "name"),
            Column("USABLE", lambda row: _yes(row.usable)),
            Column("INUSE", lambda row: _yes(row.in_use)),
            Column("REASON", lambda row: row.reason or "-"),
        ),
        lambda row: str(row.name),
    ),
)


def render(kind: Kind, rows: Sequence[Any], form: str) -> str:
    """The whole output, with a newline at the end (nothing at all for `name` without rows)."""
    match form:
        case "json":
            text = msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
            # Beyond ASCII only strings have characters: escaping those a terminal may obey changes no value.
            return re.sub(r"[^ -~\n]", lambda found: _json_escape(found[0]), text) + "\n"
        case "yaml":
            import yaml  # a tenth of a second that no other form needs

            dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml: six times as fast
            return str(yaml.dump(msgspec.to_builtins(rows), Dumper=dumper, sort_keys=False))
        case "name":
            return "".join(f"{readable(kind.identity(row))}\n" for row in rows)
        case _:
            columns = [column for column in kind.columns if form == "wide" or not column.wide]
            return table([c.title for c in columns], [[c.cell(row) for c in columns] for row in rows])


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Titles, dashes, rows; cells are made readable first."""
    lines = [list(titles), *([readable(cell) for cell in row] for row in rows)]
    widths = [max(map(width, cells)) for cells in zip(*lines, strict=True)]
    texts = [
        "  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)).rstrip(
            " "
        )
        for line in lines
    ]
    dashes = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([texts[0], dashes, *texts[1:]]) + "\n"


def readable(text: str) -> str:
    """Control, bidirectional and other unprintable characters escaped as in a Python string.

    A label may hold anything: it must neither break the table nor reach the terminal as a command.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def _json_escape(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


def width(text: str) -> int:
    """Terminal cells that a readable text takes: two for East Asian wide, none for combining characters."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
