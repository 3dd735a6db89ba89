"""Access policies: exact, also of negations and of what is not known."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.policy import (
    ALWAYS,
    NEVER,
    AccessFilter,
    AccessRule,
    Action,
    Condition,
    ConditionKind,
    InboundPolicy,
    Peer,
    PortAccess,
    is_pattern,
)

HERE = IPv4Address("10.244.5.1")
CART = Peer(IPv4Address("10.244.5.11"), "shop", "cart")
NAMELESS = Peer(IPv4Address("10.244.5.12"))
LOST = Peer(None, "shop", "cart")


def all_of(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ALL, parts)


def any_of(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ANY, parts)


def inverse(part: Condition) -> Condition:
    return Condition(ConditionKind.NOT, (part,))


def source(network: str) -> Condition:
    return Condition(ConditionKind.SOURCE, network=IPv4Network(network))


def destination(network: str) -> Condition:
    return Condition(ConditionKind.DESTINATION, network=IPv4Network(network))


def port(first: int, last: int | None = None) -> Condition:
    return Condition(ConditionKind.PORT, first=first, last=first if last is None else last)


def named(pattern: str) -> Condition:
    return Condition(ConditionKind.PRINCIPAL, pattern=pattern)


UNKNOWN = Condition(ConditionKind.UNKNOWN, pattern="requested_server_name")
EVERYTHING = source("0.0.0.0/0")


def passes(action: Action, condition: Condition, peer: Peer, at: int = 80) -> bool:
    filters = (AccessFilter(action, (AccessRule("r", condition),)),)
    guard = InboundPolicy((HERE,), "cluster.local", (PortAccess(0, filters=filters),)).guard(HERE, at)
    assert guard is not None
    return not guard.refusal(peer)


@pytest.mark.parametrize(
    ("condition", "peer", "matched"),
    [
        (source("10.244.5.0/24"), CART, True),
        (source("10.244.6.0/24"), CART, False),
        (source("10.244.5.0/24"), LOST, None),
        (inverse(source("10.244.5.0/24")), LOST, None),
        (named("spiffe://cluster.local/ns/shop/sa/cart"), CART, True),
        (named("spiffe://cluster.local/ns/shop/sa"), CART, False),  # the whole name
        (named(".*/ns/shop/.*"), CART, True),
        (named("spiffe://.+/ns/shop/(.+/|)sa/cart(/.+)?"), CART, True),
        (named(".+"), NAMELESS, False),
        (inverse(named(".+")), NAMELESS, True),  # no identity is no match, and its negation is one
        (inverse(named(".*/ns/ops/.*")), CART, True),
        (destination("10.244.5.1/32"), CART, True),
        (destination("10.244.5.2/32"), CART, False),
        (port(80), CART, True),
        (port(81), CART, False),
        (port(70, 90), CART, True),
        (all_of(), CART, True),
        (any_of(), CART, False),
        (all_of(port(80), UNKNOWN), CART, None),
        (all_of(port(81), UNKNOWN), CART, False),
        (any_of(port(80), UNKNOWN), CART, True),
        (any_of(port(81), UNKNOWN), CART, None),
        (inverse(UNKNOWN), CART, None),
        (Condition(ConditionKind.NOT), CART, None),
        (named("("), CART, None),
    ],
)
def test_conditions(condition: Condition, peer: Peer, matched: bool | None) -> None:
    """What is not known refuses: a DENY counts it as a match, an ALLOW does not."""
    assert passes(Action.ALLOW, condition, peer) == (matched is True)
    assert passes(Action.DENY, condition, peer) == (matched is False)


def test_every_filter_must_be_passed_and_the_reason_is_told() -> None:
    allow = AccessFilter(Action.ALLOW, (AccessRule("a", named(".*/ns/shop/.*")),))
    deny = AccessFilter(Action.DENY, (AccessRule("d", port(7001)),))
    policy = InboundPolicy((HERE,), "cluster.local", (PortAccess(0, filters=(deny, allow)),))
    reasons = [policy.guard(HERE, at).refusal(peer) for at in (80, 7001) for peer in (CART, NAMELESS)]  # type: ignore[union-attr]
    assert reasons == ["", "no ALLOW policy matches this client", "denied by d", "denied by d"]
    assert policy.named_ports == {7001}


def test_an_allow_without_rules_lets_nobody_through() -> None:
    policy = InboundPolicy(
        (HERE,), "cluster.local", (PortAccess(0, filters=(AccessFilter(Action.ALLOW, ()),)),)
    )
    assert policy.guard(HERE, 80).refusal(CART)  # type: ignore[union-attr]


def test_mutual_tls() -> None:
    strict, permissive, disabled = (
        PortAccess(0, plaintext=False),
        PortAccess(7001),
        PortAccess(
            7002, mutual=False, filters=(AccessFilter(Action.ALLOW, (AccessRule("a", named(".+")),)),)
        ),
    )
    policy = InboundPolicy((HERE,), "cluster.local", (strict, permissive, disabled))
    verdicts = {
        (at, peer.service_account): not policy.guard(HERE, at).refusal(peer)  # type: ignore[union-attr]
        for at in (80, 7001, 7002)
        for peer in (CART, NAMELESS, Peer(HERE, "shop"))
    }
    assert verdicts == {
        (80, "cart"): True,
        (80, ""): False,
        (7001, "cart"): True,
        (7001, ""): True,
        (7002, "cart"): False,  # DISABLE: nobody can prove a name there
        (7002, ""): False,
    }
    assert policy.named_ports == {7001, 7002}


def test_another_trust_domain() -> None:
    filters = (AccessFilter(Action.ALLOW, (AccessRule("a", named("spiffe://td2/ns/shop/sa/cart")),)),)
    ports = (PortAccess(0, filters=filters),)
    assert InboundPolicy((HERE,), "cluster.local", ports).guard(HERE, 80).refusal(CART)  # type: ignore[union-attr]
    assert not InboundPolicy((HERE,), "td2", ports).guard(HERE, 80).refusal(CART)  # type: ignore[union-attr]


def test_patterns() -> None:
    assert is_pattern(".*/ns/a/.*") and not is_pattern("(") and not is_pattern("(?:a{1000}){1000}")


addresses = [source("10.244.5.0/24"), EVERYTHING, destination("10.244.5.1/32"), destination("9.0.0.0/8")]
others = [port(80), port(81, 90), named(".*/ns/shop/.*"), named("("), UNKNOWN, ALWAYS, NEVER]
leaves = st.sampled_from([*addresses, *others])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: all_of(*parts)),
        st.lists(inner, max_size=3).map(lambda parts: any_of(*parts)),
        inner.map(inverse),
    ),
    max_leaves=8,
)
peers = st.sampled_from([CART, NAMELESS, LOST, Peer(IPv4Address("9.9.9.9"), "dev", "x"), Peer()])


def truth(condition: Condition, peer: Peer, at: int) -> bool | None:
    """The plain way, by the definition of each kind."""
    parts = [truth(part, peer, at) for part in condition.parts]
    match condition.kind:
        case ConditionKind.ALL:
            return False if False in parts else None if None in parts else True
        case ConditionKind.ANY:
            return True if True in parts else None if None in parts else False
        case ConditionKind.NOT:
            return None if parts[0] is None else not parts[0]
        case ConditionKind.SOURCE:
            assert condition.network is not None
            return None if peer.address is None else peer.address in condition.network
        case ConditionKind.DESTINATION:
            assert condition.network is not None
            return HERE in condition.network
        case ConditionKind.PORT:
            return condition.first <= at <= condition.last
        case ConditionKind.PRINCIPAL:
            if not peer.service_account:
                return False
            return None if condition.pattern == "(" else peer.namespace == "shop"
    return None


@given(trees, peers, st.sampled_from([80, 81, 90, 443]))
def test_what_is_put_in_ahead_changes_no_answer(condition: Condition, peer: Peer, at: int) -> None:
    assert passes(Action.ALLOW, condition, peer, at) == (truth(condition, peer, at) is True)
    assert passes(Action.DENY, condition, peer, at) == (truth(condition, peer, at) is False)
