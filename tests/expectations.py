"""What each step of a recorded mesh means to connections, written by hand from its Istio YAML.

A file `tests/fixtures/expected/RECORDING.toml` has one table a step, in order; a step has whatever the one
before has and it does not say otherwise.

    domain = "default.svc.cluster.local"      # of every host that is written without a dot

    [start]
    outbound = "ALLOW_ANY"                    # mesh config or Sidecar: outboundTrafficPolicy
    names.redis = ["10.96.2.1"]               # what DNS answers
    vips."10.96.2.1:6379" = { host = "redis", to = { "10.244.2.1" = 95, "10.244.2.2" = 5 } }
    levels."outbound|6379|v1|redis" = [["10.244.2.1"], ["10.244.2.3"]]

    [later]
    vips."10.96.2.1:6379" = { to = ["10.244.2.1", "10.244.2.2"] }
    gone = ["old", "10.96.2.9:80"]            # names and VIPs that are no more

`vips`: every VIP and port that does not lead to itself.  `to`: the endpoints and their shares of the
connections, in any unit; a list: equal shares; `refused`: the share that Envoy closes; an endpoint without
port has the VIP's.  `balance`: the DestinationRule's loadBalancer (Istio's default LEAST_REQUEST), or RANDOM
where a route has several destinations, since the proxy picks one of those at random.  Several tables in
a list: any one of them, where the YAML leaves it open.  `pending`: not done yet, and why; the rest is
what it must become.  `levels`: a cluster's endpoints by priority, where localities matter.

What the tables of a translation do not hold yet is not here either: limits (connectionPool,
outlierDetection), and the verdicts of inbound policy.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "fixtures" / "expected"
ROOT = FOLDER.parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "istiod"
SAMPLES = ROOT / "istio-samples"

BALANCES = ("LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "RING_HASH", "MAGLEV")


@dataclass(frozen=True, slots=True)
class Row:
    """What a VIP and port leads to."""

    host: str
    shares: Mapping[str, Fraction]
    """Of each `IP:port`; they sum to 1, or there are none."""
    balance: str = "LEAST_REQUEST"
    pending: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What is in force at the end of a step."""

    outbound: str = ""
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    vips: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """By `VIP:port`; the rows are alternatives."""
    levels: Mapping[str, tuple[frozenset[str], ...]] = field(default_factory=dict)


def recordings() -> dict[str, dict[str, Path]]:
    """The folders of each recorded mesh by name and dialogue (`sotw`, `delta`)."""
    found = {
        folder.name: {"sotw": folder, "delta": folder.with_name(f"{folder.name}-delta")}
        for folder in sorted(FIXTURES.iterdir())
        if not folder.name.endswith("-delta")
    }
    found["bookinfo"] = {"sotw": SAMPLES / "bookinfo" / "recording", "delta": FIXTURES / "bookinfo-delta"}
    for folder in sorted(SAMPLES.glob("*/recordings")):
        found[folder.parent.name] = {"sotw": folder / "sotw", "delta": folder / "delta"}
    return found


def shares(weights: Mapping[str, Any]) -> dict[str, Fraction]:
    """Weights as shares of 1; what has none is left out."""
    parts = {name: Fraction(str(weight)) for name, weight in weights.items() if weight}
    whole = sum(parts.values())
    return {name: part / whole for name, part in parts.items()}


def load(name: str) -> dict[str, Step]:
    """The steps of a recording, by name and in order."""
    text: dict[str, Any] = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    domain, steps, last = text.pop("domain"), {}, Step()
    for title, changes in text.items():
        last = steps[title] = _step(last, changes, domain)
    return steps


def _step(last: Step, changes: dict[str, Any], domain: str) -> Step:
    known = {"outbound", "names", "vips", "levels", "gone"}
    assert changes.keys() <= known, f"no such key: {sorted(changes.keys() - known)}"
    gone = {_host(name, domain) if ":" not in name else name for name in changes.get("gone", ())}
    missing = gone - last.names.keys() - last.vips.keys()
    assert not missing, f"gone, and was not there: {missing}"
    names = {key: value for key, value in last.names.items() if key not in gone}
    for name, addresses in changes.get("names", {}).items():
        names[_host(name, domain)] = frozenset(addresses)
    vips = {key: value for key, value in last.vips.items() if key not in gone}
    for vip, row in changes.get("vips", {}).items():
        variants = row if isinstance(row, list) else [row]
        before = vips.get(vip, ())
        vips[vip] = tuple(_row(before[0] if before else None, vip, each, domain) for each in variants)
    levels = dict(last.levels)
    for cluster, parts in changes.get("levels", {}).items():
        cluster, port = f"{cluster}.{domain}", cluster.split("|")[1]
        levels[cluster] = tuple(frozenset(_endpoint(item, port) for item in part) for part in parts)
    return Step(changes.get("outbound", last.outbound), names, vips, levels)


def _row(before: Row | None, vip: str, changes: dict[str, Any], domain: str) -> Row:
    known = {"host", "to", "balance", "pending"}
    assert changes.keys() <= known, f"{vip}: no such key: {sorted(changes.keys() - known)}"
    row = before or Row(_host(changes["host"], domain), {})
    if "to" in changes:
        to = changes["to"]
        weights = to if isinstance(to, dict) else dict.fromkeys(to, 1)
        port = vip.rpartition(":")[2]
        row = replace(row, shares=shares({_endpoint(item, port): part for item, part in weights.items()}))
    balance = changes.get("balance", row.balance)
    assert balance in BALANCES, f"{vip}: {balance}"
    return replace(row, balance=balance, pending=changes.get("pending", row.pending))


def _host(name: str, domain: str) -> str:
    return name if "." in name or name == "localhost" else f"{name}.{domain}"


def _endpoint(text: str, port: str) -> str:
    return text if ":" in text or text == "refused" else f"{text}:{port}"
