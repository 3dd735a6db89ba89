"""A verdict in words, for `ax explain` and for whoever reads JSON.  Pure."""

from __future__ import annotations

from typing import Any

from appswitch.interceptor.decision import AVOID, Candidate, Kind, Verdict, error_name
from appswitch.model import App, Class, Destination

_ERRORS = {"EACCES": "permission denied", "ECONNREFUSED": "connection refused", "ENETUNREACH": "unreachable"}


def explain_lines(verdict: Verdict, client: App | Class, destination: Destination) -> list[str]:
    """The answer first, then the rule and why, then one line for each candidate."""
    lines = [
        f"{client_text(client)} -> {destination.address}:{destination.port}/{destination.protocol.label}",
        f"verdict: {_outcome(verdict, destination)}",
        f"rule: {verdict.rule.value}" + (f" {verdict.service}" if verdict.service else ""),
        f"why: {verdict.why}",
    ]
    if verdict.kind is Kind.BALANCE and verdict.source_ip:
        lines.append(f"source address outside: {verdict.source_ip}")
    if verdict.candidates:
        total = sum(candidate.weight for candidate in verdict.picks)
        rows = [("CANDIDATE", "APPID", "WEIGHT", "SHARE", "STATE")]
        rows += [_row(candidate, total) for candidate in verdict.candidates]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return lines


def explain_dict(verdict: Verdict, client: App | Class, destination: Destination) -> dict[str, Any]:
    """The same as plain data."""
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


def _row(candidate: Candidate, total: int) -> tuple[str, str, str, str, str]:
    share = f"{100 * candidate.weight / total:.1f}%" if candidate.picked else "-"
    app = f"{candidate.app:08x}" if candidate.app else "-"
    address = f"{candidate.address}:{candidate.port}"
    return address, app, str(candidate.weight), share, _state(candidate)
