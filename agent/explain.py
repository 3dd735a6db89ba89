"""A verdict in words, for `ax explain` and for whoever reads JSON.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appswitch.agent.resource_origin import OriginEndpoint, OriginView, SourceView
from appswitch.interceptor.decision import AVOID, Candidate, Kind, Verdict, error_name
from appswitch.model import App, Class, Destination

_ERRORS = {"EACCES": "permission denied", "ECONNREFUSED": "connection refused", "ENETUNREACH": "unreachable"}

_CANDIDATE = ("CANDIDATE", "APPID", "WEIGHT", "SHARE", "STATE", "CLUSTER", "PRIORITY", "LOCALITY", "HEALTH")
"""The first five without an origin."""
_SOURCE = ("SOURCE", "NAME", "WEIGHT", "VERSION", "OBJECT", "NOTE")


def explain_lines(
    verdict: Verdict, client: App | Class, destination: Destination, origin: OriginView | None = None
) -> list[str]:
    """The answer first, then the rule and why, then one line for each candidate.

    With an `origin`: also for endpoints that get no connections, and for each resource it comes from.
    """
    lines = [
        f"{client_text(client)} -> {destination.address}:{destination.port}/{destination.protocol.label}",
        f"verdict: {_outcome(verdict, destination)}",
        f"rule: {verdict.rule.value}" + (f" {verdict.service}" if verdict.service else ""),
        f"why: {verdict.why}",
    ]
    if verdict.kind is Kind.BALANCE and verdict.source_ip:
        lines.append(f"source address outside: {verdict.source_ip}")
    total = sum(candidate.weight for candidate in verdict.picks)
    rows = [_row(candidate, total) for candidate in verdict.candidates]
    if origin is not None:
        behind = origin.by_address()
        rows = [(*row, *_cells(behind.pop(row[0], []))) for row in rows]
        rows += [(address, "-", "0", "-", "not used", *_cells(found)) for address, found in behind.items()]
    if rows:
        lines += _columns([_CANDIDATE[: len(rows[0])], *rows])
    if origin is not None:
        lines += _columns([_SOURCE, *(_source(source) for source in origin.sources)])
    return lines


def explain_dict(
    verdict: Verdict, client: App | Class, destination: Destination, origin: OriginView | None = None
) -> dict[str, Any]:
    """The same as plain data; of the origin what concerns the candidates."""
    behind = origin.by_address() if origin is not None else {}
    total = sum(candidate.weight for candidate in verdict.picks)
    return {
        "client": client_text(client),
        "destination": f"{destination.address}:{destination.port}",
        "protocol": destination.protocol.label,
        "verdict": verdict.kind.value,
        "error": error_name(verdict.error) if verdict.error else "",
        "rule": verdict.rule.value,
        "service": verdict.service,
        "policy": verdict.policy.value if verdict.kind is Kind.BALANCE else "",
        "why": verdict.why,
        "source_ip": str(verdict.source_ip or ""),
        "wait": verdict.wait,
        "candidates": [
            {
                "appid": f"{candidate.app:08x}" if candidate.app else "",
                "address": f"{candidate.address}:{candidate.port}",
                "weight": candidate.weight,
                "share": candidate.weight / total if candidate.picked else 0.0,
                "eligible": candidate.eligible,
                "live": candidate.live,
                "state": _state(candidate),
                **_beside(behind.get(f"{candidate.address}:{candidate.port}", [])),
            }
            for candidate in verdict.candidates
        ],
    }


def client_text(client: App | Class) -> str:
    """Who dials: `app f00001bb (role=prod)`, or `any app with role=prod`."""
    app_class = client.app_class if isinstance(client, App) else client
    labels = str(app_class.labels) or "no labels"
    if isinstance(client, App):
        return f"app {client.id_text} ({client.name + ', ' if client.name else ''}{labels})"
    return f"any app with {labels}"


def _outcome(verdict: Verdict, destination: Destination) -> str:
    if verdict.kind is Kind.REFUSE:
        name = error_name(verdict.error)
        return f"refused, {name} ({_ERRORS[name]})" if name in _ERRORS else f"refused, {name}"
    if verdict.kind is Kind.WAIT:
        return f"waits {verdict.wait:g} s at most for a listener, then {error_name(verdict.error)}"
    if verdict.kind is Kind.DIRECT:
        return f"direct to {destination.address}:{destination.port}"
    picks = verdict.picks
    patient = f", dialled again for {verdict.wait:g} s if it refuses" if verdict.wait else ""
    where = f"{picks[0].address}:{picks[0].port}" if len(picks) == 1 else f"one of {len(picks)}"
    return f"connected to {where}" + (f", {verdict.policy.value}" if len(picks) > 1 else patient)


def _state(candidate: Candidate) -> str:
    """Why connections go there, or do not."""
    if not candidate.eligible:
        return candidate.barred
    if not candidate.weight:
        return "weight 0"
    if not candidate.live:
        return "not listening"
    if candidate.failed is not None and (candidate.avoided or candidate.failed < AVOID):
        alone = "" if candidate.avoided else ", nobody else is there"
        return f"failed {candidate.failed:.1f} s ago{alone}"
    return "ok"


def _beside(endpoints: list[OriginEndpoint]) -> dict[str, Any]:
    """What Istio says of a candidate."""
    if not endpoints:
        return {}
    first = endpoints[0]
    names = ", ".join(dict.fromkeys(endpoint.cluster for endpoint in endpoints))
    return {
        "cluster": names,
        "priority": first.priority,
        "locality": first.locality,
        "health": first.health,
    }


def _cells(endpoints: list[OriginEndpoint]) -> tuple[str, ...]:
    beside = _beside(endpoints)
    shown = (str(beside.get(name, "")) for name in ("cluster", "priority", "locality", "health"))
    return tuple(text or "-" for text in shown)


def _source(source: SourceView) -> tuple[str, ...]:
    name = f"{source.name} {source.part}" if source.part else source.name
    weight = "-" if source.weight is None else str(source.weight)
    return source.type.upper(), name, weight, source.version or "-", source.object or "-", source.note


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(candidate: Candidate, total: int) -> tuple[str, ...]:
    share = f"{100 * candidate.weight / total:.1f}%" if candidate.picked else "-"
    app = f"{candidate.app:08x}" if candidate.app else "-"
    address = f"{candidate.address}:{candidate.port}"
    return address, app, str(candidate.weight), share, _state(candidate)
