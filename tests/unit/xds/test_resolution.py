"""When a host name is asked for, and what is kept of the answers."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from appswitch.xds.resolution import IN_FLIGHT, LEAST, Answer, Lookup, Resolution
from appswitch.xds.resources import Refresh

ONE, TWO, THREE = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))
PLAIN = Lookup("a.test", Refresh(60.0))


def machine(*names: Lookup, now: float = 0.0) -> Resolution:
    """One that was asked for these, and has begun."""
    resolution = Resolution(lambda _, high: high)
    resolution.want(names, now)
    assert resolution.start(now) == list(names)
    return resolution


def test_asked_for_at_once_and_again_after_the_interval() -> None:
    resolution = machine(PLAIN)
    assert not resolution.complete and resolution.due() is None
    assert resolution.answered(PLAIN, [TWO, ONE, TWO], 5.0, 1.0)
    assert resolution.complete and resolution.answers == {PLAIN: Answer((ONE, TWO))}
    assert resolution.due() == 61.0
    assert resolution.start(60.9) == []
    assert resolution.start(61.0) == [PLAIN] and resolution.start(61.0) == []
    assert not resolution.answered(PLAIN, [ONE, TWO], 5.0, 62.0), "the same in another order is no news"


def test_the_time_to_live_where_that_is_asked_for_and_some_jitter() -> None:
    by_ttl = Lookup("a.test", Refresh(60.0, True, 0.5))
    for ttl, due in (5.0, 5.5), (None, 60.5), (0.0, 60.5):
        resolution = machine(by_ttl)
        resolution.answered(by_ttl, [ONE], ttl, 0.0)
        assert resolution.due() == due
    hasty = Lookup("a.test", Refresh(0.001))
    resolution = machine(hasty)
    resolution.answered(hasty, [ONE], None, 0.0)
    assert resolution.due() == LEAST


def test_a_failure_keeps_the_last_addresses_and_is_tried_again_with_growing_pauses() -> None:
    lookup = Lookup("a.test", Refresh(60.0, failure=(2.0, 5.0)))
    resolution = machine(lookup)
    resolution.answered(lookup, [ONE], None, 0.0)
    now, pauses = 60.0, []
    for _ in range(3):
        assert resolution.start(now) == [lookup]
        resolution.failed(lookup, "no answer", now)
        due = resolution.due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [2.0, 4.0, 5.0]
    assert resolution.answers[lookup] == Answer((ONE,), "no answer")
    resolution.start(now)
    assert resolution.answered(lookup, [ONE], None, now), "that it is well again is news"
    resolution.start(now + 60)
    resolution.failed(lookup, "no answer", now + 60)
    assert resolution.due() == now + 62


def test_no_address_is_a_failure() -> None:
    resolution = machine(PLAIN)
    assert resolution.answered(PLAIN, [], 5.0, 0.0)
    assert resolution.answers == {PLAIN: Answer((), "it has no IPv4 address")}
    assert resolution.complete


def test_logical_dns_stays_with_its_address_while_the_name_has_it() -> None:
    lookup = Lookup("a.test", Refresh(), single=True)
    resolution = machine(lookup)
    for addresses, kept in ([TWO, THREE], TWO), ([ONE, TWO], TWO), ([ONE, THREE], ONE):
        resolution.answered(lookup, addresses, None, 0.0)
        assert resolution.answers[lookup].addresses == (kept,)


def test_what_nobody_wants_any_more_is_forgotten_even_while_it_is_asked_for() -> None:
    other = Lookup("b.test", Refresh())
    resolution = machine(PLAIN, other)
    resolution.want([other], 1.0)
    assert not resolution.answered(PLAIN, [ONE], None, 2.0)
    assert not resolution.failed(PLAIN, "late", 2.0)
    assert resolution.answers == {}
    resolution.want([PLAIN, other], 3.0)
    assert resolution.start(3.0) == [PLAIN], "the other is under way"


def test_not_all_at_once() -> None:
    names = [Lookup(f"{number}.test", Refresh()) for number in range(IN_FLIGHT + 10)]
    resolution = Resolution(lambda _, high: high)
    resolution.want(names, 0.0)
    first = resolution.start(0.0)
    assert len(first) == IN_FLIGHT and resolution.due() is None
    resolution.answered(first[0], [ONE], None, 1.0)
    assert resolution.due() == 0.0 and len(resolution.start(1.0)) == 1


NAMES = [Lookup("a", Refresh(1.0)), Lookup("b", Refresh(2.0, True), True), Lookup("c", Refresh(3.0))]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "start", "answered", "failed"]),
        st.sets(st.sampled_from(NAMES)),
        st.floats(0.0, 5.0),
        st.lists(st.sampled_from([ONE, TWO, THREE])),
    ),
    max_size=40,
)


@given(steps=STEPS, share=st.floats(0.0, 1.0))
def test_addresses_once_known_stay_and_every_name_comes_up_again(
    steps: list[tuple[str, set[Lookup], float, list[IPv4Address]]], share: float
) -> None:
    resolution = Resolution(lambda low, high: low + share * (high - low))
    now, under_way, kept = 0.0, set[Lookup](), set[Lookup]()
    for what, names, seconds, addresses in steps:
        now += seconds
        before = dict(resolution.answers)
        match what:
            case "want":
                resolution.want(names, now)
                kept, under_way = names, under_way & names
            case "start":
                due = resolution.due()
                begun = resolution.start(now)
                assert bool(begun) == (due is not None and due <= now)
                assert not under_way & set(begun)
                under_way |= set(begun)
            case _:
                for lookup in names & under_way:
                    if what == "answered":
                        resolution.answered(lookup, addresses, seconds, now)
                    else:
                        resolution.failed(lookup, "x", now)
                    under_way.discard(lookup)
        assert resolution.answers.keys() <= kept
        for lookup, answer in before.items():
            if lookup in kept and answer.addresses:
                assert resolution.answers[lookup].addresses
        assert (resolution.due() is None) == (kept <= under_way)
    assert all(len(answer.addresses) <= 1 for lookup, answer in resolution.answers.items() if lookup.single)
