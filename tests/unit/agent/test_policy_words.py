"""Conditions in words; those of recorded policies are in `test_resource_policies.py`."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from appswitch.agent.policy_words import words
from appswitch.policy import ALWAYS, NEVER, Condition, ConditionKind


def joined(kind: ConditionKind, *parts: Condition) -> Condition:
    return Condition(kind, parts)


ALL, ANY, NOT = ConditionKind.ALL, ConditionKind.ANY, ConditionKind.NOT
PORTS = Condition(ConditionKind.PORT, first=80, last=89)
HERE = Condition(ConditionKind.DESTINATION, network=IPv4Network("10.0.0.1/32"))
CART = Condition(ConditionKind.PRINCIPAL, pattern=".*/sa/cart")
NAME = Condition(ConditionKind.UNKNOWN, pattern="requested_server_name")


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (
            joined(ALL, PORTS, ALWAYS, joined(ALL, HERE, CART)),
            f"port 80-89 and {words(HERE)} and {words(CART)}",
        ),
        (joined(ANY, PORTS, joined(ALL, HERE, CART)), f"port 80-89 or ({words(HERE)} and {words(CART)})"),
        (joined(ANY, CART, joined(NOT, NAME)), f"{words(CART)} or not unknown requested_server_name"),
        (joined(NOT, joined(ANY, HERE, CART)), f"not ({words(HERE)} or {words(CART)})"),
        (joined(NOT, joined(NOT, CART)), f"not not {words(CART)}"),
        (joined(NOT, joined(ALL, NEVER, CART)), "always"),
        (joined(ALL, joined(ANY, CART, ALWAYS), NEVER), "never"),
        (joined(NOT), "unknown not"),
    ],
)
def test_conditions_in_words(condition: Condition, text: str) -> None:
    assert words(condition) == text
