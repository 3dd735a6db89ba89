"""Inbound policies of recorded pushes against verdicts written down by hand from the Istio YAML."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.policy import InboundPolicy, Peer
from appswitch.xds.recording import load, walk
from appswitch.xds.translate import Translation, Translator

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures" / "istiod"
BOOKINFO = ROOT / "istio-samples" / "bookinfo" / "recording"

ORDERS = IPv4Address("10.244.5.1")
CLIENT = IPv4Address("10.244.9.1")


def peer(text: str) -> Peer:
    """`ADDRESS [NAMESPACE/SERVICE-ACCOUNT]`"""
    address, _, identity = text.partition(" ")
    namespace, _, account = identity.partition("/")
    return Peer(IPv4Address(address), namespace, account)


PEERS = {
    name: peer(text)
    for name, text in {
        "cart": "10.244.5.11 shop/cart",
        "cart-away": "10.9.1.1 shop/cart",
        "front": "10.8.0.1 front-a/web",
        "dev-cart": "10.8.0.2 dev/cart",
        "ops": "10.8.0.3 ops/admin",
        "near": "10.244.5.12",
        "far": "10.244.7.7",
        "banned": "10.244.5.99",
        "stranger": "10.8.0.4",
    }.items()
}
EVERYBODY = set(PEERS)


def steps(recording: Path, workload: IPv4Address) -> dict[str, Translation]:
    translator = Translator(addresses=(workload,))
    return {item.step: item.translation for item in walk(load(recording), translator)}


def let_in(policies: tuple[InboundPolicy, ...] | None, workload: IPv4Address, port: int) -> set[str]:
    if not policies:
        return EVERYBODY
    (policy,) = policies
    assert policy.addresses == (workload,)
    guard = policy.guard(workload, port)
    return {name for name, each in PEERS.items() if guard is None or not guard.refusal(each)}


NOBODY: set[str] = set()
BY_ADDRESS = {"cart", "near", "far"}
"""a-ip: 10.244.5.0/24 and 10.244.7.0/24, not 10.244.5.99, to port 7000."""
CARTS = {"cart", "cart-away"}
"""b-principals: cluster.local/ns/shop/sa/cart, not of namespace dev, to any port."""
NAMESPACES = {*CARTS, "front"}
"""c-namespaces: shop and front-*, to any port."""
LATE = {7000: NOBODY, 7001: NOBODY, 8080: NAMESPACES, 9999: NAMESPACES}
"""e-deny-http: istiod leaves DELETE out for TCP, so port 7000 is closed; d-deny-admin: 7001 is, but for
ops, whom no ALLOW names."""
SERVER = {
    "start": dict.fromkeys((7000, 7001, 8080, 9999), EVERYBODY),
    "allow-ip-and-port": {7000: BY_ADDRESS, 7001: NOBODY, 8080: NOBODY, 9999: NOBODY},
    "allow-principals": {7000: BY_ADDRESS | CARTS, 7001: CARTS, 8080: CARTS, 9999: CARTS},
    "allow-namespaces": {
        7000: BY_ADDRESS | NAMESPACES,
        7001: NAMESPACES,
        8080: NAMESPACES,
        9999: NAMESPACES,
    },
    "deny-port": {7000: BY_ADDRESS | NAMESPACES, 7001: NOBODY, 8080: NAMESPACES, 9999: NAMESPACES},
    "deny-http-fields": LATE,
    "allow-http-fields": LATE,  # GET of /healthz: only requests can tell, so no connection is let in by it
    "when-conditions": LATE,  # g-when is about port 7000, which is closed
    "audit": LATE,
    "allow-nothing-namespace-wide": LATE,  # names nobody: it takes nothing away
    "deny-all": dict.fromkeys((7000, 7001, 8080, 9999), NOBODY),
    "deny-all-removed": LATE,
    "mtls-strict": LATE,  # all of those have an identity
    "mtls-permissive-on-a-port": LATE,
}


@pytest.mark.parametrize("recording", ["server", "server-delta"])
def test_server_step_by_step(recording: str) -> None:
    translations = steps(FIXTURES / recording, ORDERS)
    assert list(translations) == list(SERVER)
    for step, ports in SERVER.items():
        for port, expected in ports.items():
            assert let_in(translations[step].policies, ORDERS, port) == expected, (step, port)


@pytest.mark.parametrize("recording", ["server", "server-delta"])
def test_mutual_tls_by_port(recording: str) -> None:
    translations = steps(FIXTURES / recording, ORDERS)
    found = {
        step: {each.port: (each.plaintext, each.mutual) for each in translations[step].policies[0].ports}
        for step in ("deny-all-removed", "mtls-strict", "mtls-permissive-on-a-port")
    }
    permissive, strict = (True, True), (False, True)
    assert found == {
        "deny-all-removed": dict.fromkeys((0, 7000, 7001, 8080), permissive),
        "mtls-strict": dict.fromkeys((0, 7000, 7001, 8080), strict),
        "mtls-permissive-on-a-port": {0: strict, 7000: strict, 7001: permissive, 8080: strict},
    }


@pytest.mark.parametrize("recording", ["server", "server-delta"])
def test_what_only_requests_can_tell_is_reported(recording: str) -> None:
    translations = steps(FIXTURES / recording, ORDERS)

    def reported(step: str) -> set[tuple[str, str, str]]:
        return {
            (item.field, item.resource.partition("/")[2], item.instead)
            for item in translations[step].unsupported
            if item.field.startswith("inbound.")
            and item.field not in ("inbound.transport_socket", "inbound.rbac.strangers")
        }

    deny = (
        "inbound.http_filters.rbac",
        "ns[shop]-policy[e-deny-http]-rule[0]",
        "what only requests can tell is left out: DENY is for the connection",
    )
    allow = (
        "inbound.http_filters.rbac",
        "ns[shop]-policy[f-allow-http]-rule[0]",
        "only requests can tell: no connection is let through by it",
    )
    audit = (
        "inbound.rbac.rules.LOG",
        "ns[shop]-policy[h-audit]-rule[0]",
        "AUDIT: matching connections are not logged",
    )
    assert reported("start") == reported("deny-port") == set()
    assert reported("deny-http-fields") == {deny}
    assert reported("when-conditions") == {deny, allow}
    assert reported("audit") == reported("mtls-strict") == {deny, allow, audit}


@pytest.mark.parametrize("recording", ["corners", "corners-delta"])
def test_negated_principals_and_dry_runs(recording: str) -> None:
    """`notPrincipals: ["*"]` denies who has no identity; a dry run does nothing at all."""
    translations = steps(FIXTURES / recording, CLIENT)
    named = {"cart", "cart-away", "front", "ops"}
    assert let_in(translations["start"].policies, CLIENT, 8000) == named  # and not of namespace dev
    for step in ("only-dry", "only-dry-allow"):
        assert not translations[step].policies
        fields = {item.field for item in translations[step].unsupported}
        assert "inbound.rbac.shadow_rules" in fields
    assert "inbound.rbac.requested_server_name" in {item.field for item in translations["start"].unsupported}


@pytest.mark.parametrize("recording", [BOOKINFO, FIXTURES / "bookinfo-delta"])
def test_bookinfo_by_address(recording: Path) -> None:
    """10.244.1.1 alone may, to port 8000; then 10.244.1.4 may not, whatever else is said."""
    translations = steps(recording, CLIENT)
    assert not translations["delete-details"].policies
    for step in ("authorization-allow", "authorization-deny"):
        (policy,) = translations[step].policies
        verdicts = {
            (address, port): not policy.guard(CLIENT, port).refusal(peer(address))  # type: ignore[union-attr]
            for address in ("10.244.1.1", "10.244.1.4")
            for port in (8000, 8001)
        }
        assert [place for place, passed in verdicts.items() if passed] == [("10.244.1.1", 8000)]
