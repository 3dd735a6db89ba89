"""What ordinary users' apps may call themselves."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from appswitch.agent import hello
from appswitch.agent.claims import MAX_CLASSES, UserRules, address, check, owner_names
from appswitch.agent.registry import Registry
from appswitch.errors import Denied, Exhausted
from appswitch.model import DEFAULT_LABELS, App, Backend, Class, Labels, PortMap, VService

RULES = UserRules(any=False, apps=4, virtual=IPv4Network("241.0.0.0/8"))
FREE = replace(RULES, any=True)
OWNERS = ("1000", "alice")


def request(**flags: object) -> hello.Request:
    fields = ", ".join(f'"{key}": "{value}"' for key, value in flags.items())
    return hello.decode(f'{{"version": 1, "command": ["x"]{", " + fields if fields else ""}}}'.encode())


def registry(*apps: App) -> Registry:
    made = Registry("host0", IPv4Address("10.0.2.15"))
    for app in apps:
        made.add_app(app)
    return made


def app(number: int, ip: str, user: int, labels: Labels = DEFAULT_LABELS, name: str = "") -> App:
    return App(number, f"uid-{number}", Class(labels), IPv4Address(ip), name=name, user=user)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"name": "web.alice"},
        {"name": "alice"},
        {"name": "web.1000"},
        {"labels": "role=test.alice"},
        {"labels": "zone=default,role=1000"},
        {"ip": "241.1.2.3"},
    ],
)
def test_ones_own(flags: dict[str, str]) -> None:
    check(request(**flags), 1000, OWNERS, registry(), RULES)


@pytest.mark.parametrize(
    "flags",
    [
        {"name": "web"},
        {"name": "web.bob"},
        {"name": "malice"},
        {"name": "localhost"},
        {"labels": "role=test"},
        {"labels": "role=malice"},
        {"labels": "zone=default,role=admin"},
        {"ip": "8.8.8.8"},
        {"ip": "10.0.2.15"},
        {"namespace": "prod"},
        {"service_account": "alice"},
    ],
)
def test_what_may_be_anothers(flags: dict[str, str]) -> None:
    with pytest.raises(Denied, match="--user-claims any"):
        check(request(**flags), 1000, OWNERS, registry(), RULES)
    check(request(**flags), 1000, OWNERS, registry(), FREE)


def test_an_address_in_use() -> None:
    taken = request(ip="241.1.2.3")
    check(taken, 1000, OWNERS, registry(app(1, "241.1.2.3", 1000)), RULES)
    with pytest.raises(Denied, match="app 00000001 of user 0 has it"):
        check(taken, 1000, OWNERS, registry(app(1, "241.1.2.3", 0)), RULES)
    made = registry()
    made.create_vservice(VService("v", (), (PortMap(80, 80),), (Backend(IPv4Address("241.1.2.3")),)))
    with pytest.raises(Denied, match="vservice 'v' names it"):
        check(taken, 1000, OWNERS, made, RULES)


def test_without_a_claim_the_users_apps_share_an_address_of_their_own() -> None:
    made = registry(app(1, "10.0.2.15", 0))
    first = address(request(), 1000, made, RULES)
    assert first is not None and first in RULES.virtual
    made.add_app(app(2, str(first), 1000))
    assert address(request(), 1000, made, RULES) == first
    assert address(request(), 1001, made, RULES) not in (first, None)
    assert address(request(), 1000, made, FREE) is None
    assert address(request(name="web.alice"), 1000, made, RULES) is None


def test_how_many() -> None:
    apps = [app(number, "241.1.2.3", 1000) for number in range(1, 5)]
    with pytest.raises(Exhausted, match="user 1000 has 4 apps"):
        check(request(), 1000, OWNERS, registry(*apps), FREE)
    check(request(), 1001, ("1001",), registry(*apps), FREE)
    many = [
        app(number, "241.1.2.3", 1000, Labels(frozenset({("n", str(number))})))
        for number in range(1, MAX_CLASSES + 1)
    ]
    with pytest.raises(Exhausted, match="32 different labels"):
        check(request(), 1000, OWNERS, registry(*many), replace(FREE, apps=1000))


@pytest.mark.parametrize("name", ["", "Alice", "1001", "a.b", "älice"])
def test_names_that_could_be_anothers(name: str) -> None:
    """Upper case is lost in DNS, digits are somebody's number, a dot ends in another's name."""
    assert owner_names(1000, name) == ("1000",)
    assert owner_names(1000, "alice") == OWNERS
