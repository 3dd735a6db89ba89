"""Rows of `ax get policies`, of what a real Istiod sent for the workload `orders`."""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Address

from unit.xds.test_access import FIXTURES, ORDERS, steps

from appswitch.agent.cli_get import find_kind
from appswitch.agent.render import render
from appswitch.agent.resource_policies import PolicyView, views
from appswitch.model import Snapshot
from appswitch.policy import AccessFilter, Action, InboundPolicy, PortAccess

BY_ADDRESS = "port 7000 and (source 10.244.5.0/24 or 10.244.7.0/24) and not source 10.244.5.99/32"


@cache
def rows(step: str) -> list[PolicyView]:
    return shown(*steps(FIXTURES / "server", ORDERS)[step].policies or ())


def shown(*policies: InboundPolicy) -> list[PolicyView]:
    return views(Snapshot("host0", IPv4Address("10.0.2.15"), policies=policies))


def at(step: str, port: int) -> list[tuple[int, str, str, str]]:
    """Filter, action, policy and condition."""
    return [
        (row.filter, row.action, row.rule.removeprefix("ns[shop]-policy[").partition("]")[0], row.condition)
        for row in rows(step)
        if (row.address, row.port) == (str(ORDERS), port)
    ]


def test_nothing_before_the_first_policy() -> None:
    assert rows("start") == []


def test_rules_of_a_port_in_words() -> None:
    assert at("deny-port", 8080) == [
        (1, "DENY", "d-deny-admin", "port 7001 and not principal .*/ns/ops/.*"),
        (2, "ALLOW", "a-ip", BY_ADDRESS),
        (
            2,
            "ALLOW",
            "b-principals",
            r"principal spiffe\:\/\/cluster\.local\/ns\/shop\/sa\/cart and not principal .*/ns/dev/.*",
        ),
        (2, "ALLOW", "c-namespaces", "principal .*/ns/shop/.* or .*/ns/front-.*/.*"),
    ]


def test_rules_that_match_always_and_never() -> None:
    found = {policy: condition for _, _, policy, condition in at("deny-all", 0)}
    assert (found["z-deny-all"], found["allow-nothing"]) == ("always", "never")


def test_mutual_tls_by_port() -> None:
    found = {row.port: row.mtls for row in rows("mtls-permissive-on-a-port")}
    assert found == {0: "STRICT", 7000: "STRICT", 7001: "PERMISSIVE", 8080: "STRICT"}


def test_ports_without_rules() -> None:
    access = (
        PortAccess(80, plaintext=True, mutual=False),
        PortAccess(0, plaintext=False, mutual=False, filters=(AccessFilter(Action.ALLOW, ()),)),
    )
    policy = InboundPolicy((IPv4Address("10.0.0.10"), IPv4Address("10.0.0.9")), "cluster.local", access)
    assert [
        (row.address, row.port, row.mtls, row.filter, row.action, row.rule, row.condition)
        for row in shown(policy)
    ] == [
        ("10.0.0.9", 0, "NONE", 1, "ALLOW", "", "never"),
        ("10.0.0.9", 80, "DISABLE", 0, "", "", "always"),
        ("10.0.0.10", 0, "NONE", 1, "ALLOW", "", "never"),
        ("10.0.0.10", 80, "DISABLE", 0, "", "", "always"),
    ]


def test_the_tables() -> None:
    kind = find_kind("policy")
    assert render(kind, rows("allow-ip-and-port")[:2], "table").splitlines() == [
        "ADDRESS     PORT  MTLS        ACTION  RULE",
        "-------------------------------------------------------------------",
        "10.244.5.1  *     PERMISSIVE  ALLOW   ns[shop]-policy[a-ip]-rule[0]",
        "10.244.5.1  7000  PERMISSIVE  ALLOW   ns[shop]-policy[a-ip]-rule[0]",
    ]
    assert (
        render(kind, rows("allow-ip-and-port")[:1], "wide").splitlines()[-1].endswith(f"1       {BY_ADDRESS}")
    )
    assert (
        render(kind, rows("allow-ip-and-port")[:1], "name") == "10.244.5.1:*/ns[shop]-policy[a-ip]-rule[0]\n"
    )
