"""The incremental dialogue, case by case (the numbers are those of docs on xDS conformance: C01 …)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playbook import Playbook

from appswitch.xds.ads import (
    Connected,
    Disconnected,
    Ignored,
    Publish,
    Received,
    Rejected,
    SendDelta,
    Withheld,
)
from appswitch.xds.decode import decode_resource, resource_name
from appswitch.xds.delta import Delta
from appswitch.xds.held import WILDCARD
from appswitch.xds.make import assignment, cluster, http_listener, name_table, response, routes, tcp_listener
from appswitch.xds.resources import CDS, EDS, LDS, NDS, RDS, RawResource, Refusal, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.translate import Translator

START = (SendDelta(CDS, first=True), SendDelta(LDS), SendDelta(NDS))


def update(
    version: str, *resources: RawResource, removed: tuple[str, ...] = (), of: str = "", each: str = ""
) -> Response:
    """As `response`, each resource with its name and the version `each`."""
    named = (
        replace(raw, name=resource_name(decode_resource(raw.type_url, raw.value)), version=each)
        for raw in resources
    )
    return replace(response(version, *named, of=of or resources[0].type_url), removed=removed)


def started() -> tuple[Delta, Playbook]:
    ads = Delta()
    play = Playbook(ads.handle)
    play.feed(Connected()).expect(*START)
    return ads, play


def test_first_requests_are_wildcards_and_children_are_asked_for_once_known() -> None:  # C01, C02, C32
    with started()[1] as play:
        play.feed(Received(update("1", cluster("b"), cluster("a")))).expect(
            SendDelta(CDS, "n1"), SendDelta(EDS, subscribe=("a", "b")), Publish
        )
        play.feed(Received(update("1", assignment("a", "10.0.0.1:80")))).expect(SendDelta(EDS, "n1"), Publish)
        play.feed(Received(update("1", http_listener(80, "80")))).expect(
            SendDelta(LDS, "n1"), SendDelta(RDS, subscribe=("80",)), Publish
        )
        play.feed(Received(update("1", routes("80", web=("10.1.1.1", "a"))))).expect(
            SendDelta(RDS, "n1"), Publish
        )
        play.feed(Received(update("1", name_table(web="10.1.1.1")))).expect(SendDelta(NDS, "n1"), Publish)


def test_added_updated_removed_and_what_is_not_listed_stays() -> None:  # C33
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a"), cluster("b")))).expect(SendDelta, SendDelta, Publish)
        held = ads.held.config().clusters["a"]
        play.feed(Received(update("2", cluster("b", lb_policy=3)))).expect(SendDelta(CDS, "n2"), Publish)
        assert ads.held.config().clusters["a"] is held
        assert ads.held.config().clusters["b"].balance.name == "RANDOM"
        play.feed(Received(update("3", removed=("a",), of=CDS))).expect(
            SendDelta(CDS, "n3"), SendDelta(EDS, unsubscribe=("a",)), Publish
        )
        assert set(ads.held.config().clusters) == {"b"}
        play.feed(Received(update("4", of=CDS))).expect(SendDelta(CDS, "n4"))  # nothing: nothing is removed


def test_the_end_of_what_was_never_there() -> None:  # C34
    with started()[1] as play:
        play.feed(Received(update("1", removed=("nobody",), of=CDS))).expect(SendDelta(CDS, "n1"))


def test_subscriptions_say_the_difference_and_never_ride_on_an_answer() -> None:  # C11, C12, C35
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a"), cluster("b")))).expect(SendDelta, SendDelta, Publish)
        play.feed(Received(update("1", assignment("a", "10.0.0.1:80")))).expect(SendDelta, Publish)
        play.feed(Received(update("2", cluster("c"), removed=("a",)))).expect(
            SendDelta(CDS, "n2"), SendDelta(EDS, subscribe=("c",), unsubscribe=("a",)), Publish
        )
        assert "a" not in ads.held.config().assignments


def test_unsubscribed_and_subscribed_again() -> None:  # C36
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a")))).expect(SendDelta, SendDelta, Publish)
        play.feed(Received(update("1", assignment("a", "10.0.0.1:80")))).expect(SendDelta, Publish)
        play.feed(Received(update("2", removed=("a",), of=CDS))).expect(
            SendDelta, SendDelta(EDS, unsubscribe=("a",)), Publish
        )
        play.feed(Received(update("3", cluster("a")))).expect(
            SendDelta, SendDelta(EDS, subscribe=("a",)), Publish
        )
        assert ads.held.config().awaited == ("lds", "a")
        play.feed(Received(update("4", assignment("a", "10.0.0.1:80")))).expect(SendDelta, Publish)


def test_c39_of_a_wildcard_nothing_is_asked_for_by_name_and_the_server_says_what_stays() -> None:
    """A name beside a wildcard would leave open what unsubscribing from it means: none is ever sent.  A
    child that nobody refers to any more is dropped at once; sent all the same, it is not taken."""
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a"), cluster("b")))).expect(SendDelta, SendDelta, Publish)
        play.feed(Received(update("1", assignment("a", "10.0.0.1:80")))).expect(SendDelta, Publish)
        play.feed(Received(update("2", removed=("a",), of=CDS))).expect(
            SendDelta(CDS, "n2"), SendDelta(EDS, unsubscribe=("a",)), Publish
        )
        play.feed(Received(update("2", assignment("a", "10.0.0.9:80")))).expect(SendDelta(EDS, "n2"))
        assert not ads.held.config().assignments
        play.feed(Received(update("3", of=CDS))).expect(SendDelta(CDS, "n3"))
        assert set(ads.held.config().clusters) == {"b"}, "nothing said of it: it stays"
        play.feed(Received(update("4", cluster("a")))).expect(
            SendDelta(CDS, "n4"), SendDelta(EDS, subscribe=("a",)), Publish
        )
    wildcards = [c for c in ads.handle(Connected()) if isinstance(c, SendDelta) and c.type_url in WILDCARD]
    assert [(c.subscribe, c.unsubscribe) for c in wildcards] == [((), ())] * 3


def test_a_reconnect_says_what_is_in_force() -> None:  # C37, C38
    ads, play = started()
    with play:
        both = update("1", cluster("a"), cluster("b"), each="v1")
        play.feed(Received(both)).expect(SendDelta, SendDelta, Publish)
        play.feed(Received(update("1", assignment("a", "10.0.0.1:80"), each="e1"))).expect(SendDelta, Publish)
        bad = RawResource(CDS, cluster("b").value[:-1], "b", "v2")
        good = RawResource(CDS, cluster("a", lb_policy=3).value, "a", "v2")
        play.feed(Received(response("2", bad, good))).expect(SendDelta, Rejected, Publish)
        play.feed(Disconnected()).expect()
        play.feed(Connected()).expect(
            SendDelta(CDS, versions=(("a", "v2"), ("b", "v1")), first=True),
            SendDelta(EDS, subscribe=("a", "b"), versions=(("a", "e1"),)),
            SendDelta(LDS),
            SendDelta(NDS),
        )
        play.feed(Received(update("3", cluster("b"), removed=("a",)))).expect(
            SendDelta(CDS, "n3"), SendDelta(EDS, unsubscribe=("a",)), Publish
        )
        assert set(ads.held.config().clusters) == {"b"}


def test_one_bad_of_many_is_named_and_keeps_its_last_good() -> None:  # C03, C04, C05, C06, C07
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a"), cluster("b")))).expect(SendDelta, SendDelta, Publish)
        first = ads.held.config().clusters["a"]
        bad = RawResource(CDS, cluster("a").value[:-1], "a")
        commands = ads.handle(Received(response("2", bad, cluster("b", lb_policy=3))))
        nack, rejected, publish = commands
        assert isinstance(nack, SendDelta) and nack.nonce == "n2" and nack.error.startswith("a: ")
        assert isinstance(rejected, Rejected) and isinstance(publish, Publish)
        assert publish.config.clusters["a"] is first
        assert publish.config.clusters["b"].balance.name == "RANDOM"
        play.feed(Received(update("3", cluster("a", lb_policy=3)))).expect(SendDelta(CDS, "n3"), Publish)


@pytest.mark.parametrize(
    ("resources", "removed", "reason"),
    [
        ((cluster("a"), cluster("a")), (), "it stands twice in one response"),  # C20
        ((cluster("a"),), ("a",), "it is sent and removed in one response"),
        ((RawResource(CDS, cluster("a").value, "other"),), (), "it was sent as 'other'"),
        ((RawResource(EDS, assignment("a").value, "a"),), (), "its type is"),  # C22
    ],
)
def test_responses_that_contradict_themselves(
    resources: tuple[RawResource, ...], removed: tuple[str, ...], reason: str
) -> None:
    ads, _ = started()
    commands = ads.handle(Received(Response(CDS, "1", "n1", resources, removed)))
    assert isinstance(commands[0], SendDelta) and reason in commands[0].error
    assert not ads.held.config().clusters


def test_sent_and_removed_at_once_keeps_the_last_good() -> None:
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a")))).expect(SendDelta, SendDelta, Publish)
        both = update("2", cluster("a", lb_policy=3), removed=("a",))
        play.feed(Received(both)).expect(SendDelta, Rejected)
        assert ads.held.config().clusters["a"].balance.name == "ROUND_ROBIN"


def test_nobody_asked_for_it() -> None:  # C19, C21, C53
    ads, play = started()
    with play:
        play.feed(Received(update("1", assignment("x", "10.0.0.1:80")))).expect(SendDelta(EDS, "n1"))
        assert not ads.held.config().assignments
        play.feed(Received(Response("type.googleapis.com/x.Y", "1", "n1", ()))).expect(Ignored)


def test_a_heartbeat_changes_nothing() -> None:  # C46
    ads, play = started()
    with play:
        play.feed(Received(update("1", cluster("a")))).expect(SendDelta, SendDelta, Publish)
        play.feed(Received(response("1", RawResource("", b"", "a"), of=CDS))).expect(SendDelta)
        assert set(ads.held.config().clusters) == {"a"}


@pytest.mark.parametrize("make", [Delta, Sotw])
def test_why_a_resource_is_not_sent(make: type[Delta | Sotw]) -> None:  # C48
    ads = make()
    ads.handle(Connected())
    ads.handle(Received(response("1", cluster("a"), cluster("b"), cluster("c"))))
    ads.handle(Received(response("1", *(assignment(name, "10.0.0.1:80") for name in ("a", "b")))))
    ads.handle(Received(response("1", tcp_listener("10.1.1.1", 80, a=1))))
    assert ads.held.config().awaited == ("c",)
    refusals = Refusal("a", 5, "no such thing"), Refusal("b", 14, "busy"), Refusal("c", 7, "not for you")
    answer = Response(EDS, "2", "n2", (), refusals=refusals)
    commands = ads.handle(Received(answer))
    (withheld,) = (command for command in commands if isinstance(command, Withheld))
    assert dict(withheld.errors) == {"a": "no such thing", "b": "busy", "c": "not for you"}
    assert isinstance(commands[-1], Publish)
    config = commands[-1].config
    behind = {name: bool(assignment.localities) for name, assignment in config.assignments.items()}
    assert behind == {"a": False, "b": True, "c": False}, "a failure of the server's takes nothing away"
    assert config.awaited == ()
    (row,) = Translator().translate(config).vservices
    assert row.backends == (), "connect() is refused, not sent to where it was sent before"
    assert len(ads.handle(Received(answer))) == 1, "said once"
    other = Response(EDS, "2", "n2", (), refusals=(refusals[1], Refusal("nobody", 5, "never asked for")))
    assert len(ads.handle(Received(other))) == 1
    assert set(ads.held.types[EDS].withheld) == {"a", "b", "c"}
    ads.handle(Received(response("3", assignment("c", "10.0.0.3:80"))))
    assert bool(ads.held.config().assignments["c"].localities)
    assert set(ads.held.types[EDS].withheld) == {"a", "b"}


def test_what_one_dialogue_brought_the_other_goes_on_with() -> None:
    ads, _ = started()
    ads.handle(Received(update("1", cluster("a"))))
    ads.handle(Received(update("1", assignment("a", "10.0.0.1:80"))))
    ads.handle(Disconnected())
    sends = Sotw(ads.held).handle(Connected())
    assert [getattr(send, "names", None) for send in sends] == [(), ("a",), (), ()]
    assert set(ads.held.config().assignments) == {"a"}
