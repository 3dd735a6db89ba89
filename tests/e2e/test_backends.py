"""`ax get backends`, `ax get bpf` and `ax explain` of a real node."""

from __future__ import annotations

import json
from typing import Any

from e2e.node import Node
from e2e.sandbox import NODE_IP
from e2e.servers import PROGRAMS, PYTHON, start_echo

DIAL = [PYTHON, str(PROGRAMS / "dial.py")]


def rows(node: Node, service: str) -> dict[str, dict[str, Any]]:
    return {row["backend"]: row for row in node.get("backends") if row["service"] == service}


def test_a_dead_backend_is_seen_and_avoided(node: Node, mode: list[str]) -> None:
    ip, vip = node.fresh_ip(), node.fresh_ip()
    start_echo(node, *mode, name="alive", ip=ip)
    node.ax(
        "create", "vservice", "--ip", vip, "--backends", f"{ip},{NODE_IP}:909", "--ports", "80:7000", "shop"
    ).ok()
    try:
        # What an app counted goes soon after its end: this one lives on.
        client = node.start(
            *mode, "sh", "-c", '"$@" && exec sleep 60', "sh", *DIAL, "many", vip, "80", "40", "1"
        )
        node.wait(lambda: client.output().endswith("\n"), "40 connections")
        out = json.loads(client.output())
        assert out["names"]["alive"] >= 39, out
        dead = f"{NODE_IP}:909"
        row = rows(node, f"{vip}:80")[dead]
        assert row["refused"] == row["opened"] == row["failed"] == sum(out["errors"].values())
        alive = rows(node, f"{vip}:80")[f"{ip}:7000"]
        assert (alive["opened"], alive["active"], alive["failed"]) == (out["names"]["alive"], 0, 0)
        assert alive["name"] == "shop" and alive["state"] == "ok" and alive["sent"] > 0
        table = node.ax("get", "backends").ok().splitlines()
        assert [line for line in table if f"{vip}:80 " in line and dead in line]
        client.stop()

        def explained() -> bool:
            """A second after the failure it is no longer avoided: then once more."""
            node.run(*mode, *DIAL, "many", vip, "80", "20", "1").ok()
            return f"{dead}  -         1       -       failed 0" in node.ax("explain", vip).ok()

        node.wait(explained, "ax explain says that it failed", 30)
        node.wait(lambda: not rows(node, f"{vip}:80")[dead]["dialers"], "what an ended app counted is gone")
    finally:
        node.ax("delete", "vservice", "shop").ok()
        node.stop_apps()


def test_bpf(node: Node) -> None:
    node.run("--new-netns=false", "true").ok()
    listed = json.loads(node.ax("get", "bpf", "-o", "json").ok())
    assert {row["kind"] for row in listed} == {"program", "map"}
    assert {"ax_connect4", "ports", "counts"} <= {row["name"] for row in listed}
    head, *table = node.ax("get", "bpf", "--seconds", "0.2").ok().splitlines()
    assert head.split()[:3] == ["KIND", "NAME", "ID"] and len(table) == len(listed) + 1
    assert node.ax("get", "apps", "--seconds", "1").code == 64
    wrong = node.ax("get", "bpf", "--seconds", "100")
    assert wrong.code == 65 and "'100' is not a number from 0 to 60" in wrong.err
    refused = node.host("curl", "-s", "http://127.0.0.1:6664/v1/bpf?seconds=1")
    assert "read-only" in refused.ok()
