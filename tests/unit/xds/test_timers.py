"""What is waited for, and what lives for a time, in both dialogues (C25, C26, C45, C46)."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playbook import Playbook

from appswitch.xds.ads import Connected, Disconnected, Elapsed, Publish, Received, Withheld
from appswitch.xds.decode import decode_resource, resource_name
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.make import assignment, cluster, http_listener, response, routes, tcp_listener
from appswitch.xds.resources import CDS, EDS, LDS, RDS, Cluster, Listener, RawResource, Refusal, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.timers import NEVER_CAME, TOO_OLD, Timers
from appswitch.xds.translate import Translator

both = pytest.mark.parametrize("make", [Sotw, Delta])
NEVER = {"eds_config": {"ads": {}, "initial_fetch_timeout": {}}}


def sent(version: str, *resources: RawResource, ttl: float | None = None, of: str = "") -> Response:
    """A response whose resources stand in wrappers: by name, with a version and a time to live."""
    wrapped = (
        replace(raw, name=resource_name(decode_resource(raw.type_url, raw.value)), version="v1", ttl=ttl)
        for raw in resources
    )
    return response(version, *wrapped, of=of)


def beat(name: str, ttl: float | None, version: str = "v1") -> RawResource:
    return RawResource("", b"", name, version, ttl)


def endpoints(ads: Dialogue) -> dict[str, bool]:
    """Which assignments there are, and whether there is anything in them."""
    return {name: bool(each.localities) for name, each in ads.held.config().assignments.items()}


def lost(*names: str, of: str = EDS, why: str = NEVER_CAME) -> Withheld:
    return Withheld(of, tuple((name, why) for name in names))


def test_c25_how_long_a_resource_is_waited_for_stands_where_it_is_named() -> None:
    def patience(source: dict[str, object]) -> float:
        config = {"eds_config": {"ads": {}, **source}}
        decoded = decode_resource(CDS, cluster("a", eds_cluster_config=config).value)
        assert isinstance(decoded, Cluster)
        return decoded.fetch_timeout

    assert patience({}) == 15.0
    assert patience({"initial_fetch_timeout": {"seconds": 2, "nanos": 500_000_000}}) == 2.5
    assert patience({"initial_fetch_timeout": {}}) == inf  # Istiod's: for ever
    listener = decode_resource(LDS, http_listener(80, "80").value)
    assert isinstance(listener, Listener)
    assert [target.fetch_timeout for target in listener.route_configs] == [15.0]


@both
def test_c25_what_never_comes_does_not_exist(make: type[Dialogue]) -> None:
    ads = make()
    with Playbook(ads.handle) as play:
        play.feed(Connected(100.0)).expect(object, object, object)
        slow = cluster("slow", eds_cluster_config=NEVER)
        play.feed(Received(sent("1", cluster("a"), cluster("b"), slow), 101.0)).expect(
            object, object, Publish
        )
        play.feed(Received(sent("1", assignment("b", "10.0.0.2:80")), 105.0)).expect(object, Publish)
        assert ads.held.due() == 116.0
        play.feed(Elapsed(115.9)).expect()
        play.feed(Elapsed(116.0)).expect(lost("a"), Publish)
        assert endpoints(ads) == {"a": False, "b": True}
        assert ads.held.config().awaited == ("lds", "slow")
        assert ads.held.due() is None


@both
def test_c25_routes_that_never_come_are_none(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", http_listener(80, "80")), 1.0))
    assert ads.handle(Elapsed(16.0))[0] == lost("80", of=RDS)
    assert ads.held.config().routes["80"].hosts == ()
    ads.handle(Received(sent("1", routes("80", web=("10.1.1.1", "a"))), 20.0))
    assert ads.held.config().routes["80"].hosts


@both
def test_c25_a_broken_stream_stops_the_timer_and_the_next_begins_it_anew(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", cluster("a"), cluster("b")), 0.0))
    ads.handle(Received(sent("1", assignment("b", "10.0.0.2:80")), 0.0))
    ads.handle(Disconnected())
    assert ads.held.due() is None
    assert ads.handle(Elapsed(50.0)) == []
    ads.handle(Connected(60.0))
    assert ads.held.due() == 75.0
    ads.handle(Received(sent("1", cluster("a"), cluster("b")), 70.0))
    assert ads.held.due() == 75.0, "asked for again by nobody: the timer goes on"
    ads.handle(Elapsed(75.0))
    assert endpoints(ads) == {"a": False, "b": True}


@both
def test_c25_a_bad_one_has_come_and_one_that_is_not_wanted_is_not_waited_for(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", cluster("a"), cluster("b")), 0.0))
    bad = RawResource(EDS, assignment("a", "10.0.0.1:80").value[:-1], "a")
    ads.handle(Received(response("1", bad), 1.0))
    assert ads.held.due() == 15.0  # b's
    gone = replace(sent("2", cluster("a")), removed=("b",) if make is Delta else ())
    ads.handle(Received(gone, 2.0))
    assert ads.held.due() is None


@both
def test_c26_what_comes_late_is_applied(make: type[Dialogue]) -> None:
    ads, translator = make(), Translator()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", cluster("a")), 0.0))
    ads.handle(Received(sent("1", tcp_listener("10.1.1.1", 80, a=1)), 0.0))
    assert translator.translate(ads.held.config()).vservices == ()
    ads.handle(Elapsed(15.0))
    (row,) = translator.translate(ads.held.config()).vservices
    assert row.backends == (), "connect() is refused"
    commands = ads.handle(Received(sent("1", assignment("a", "10.0.0.1:80")), 99.0))
    assert isinstance(commands[-1], Publish)
    (row,) = translator.translate(ads.held.config()).vservices
    assert [str(backend.address) for backend in row.backends] == ["10.0.0.1"]


@both
def test_c45_what_is_not_sent_again_in_time_is_removed(make: type[Dialogue]) -> None:
    ads = make()
    with Playbook(ads.handle) as play:
        play.feed(Connected(0.0)).expect(object, object, object)
        play.feed(Received(sent("1", cluster("a"), ttl=30.0), 0.0)).expect(object, object, Publish)
        play.feed(Received(sent("1", assignment("a", "10.0.0.1:80"), ttl=5.0), 1.0)).expect(object, Publish)
        play.feed(Received(sent("2", assignment("a", "10.0.0.1:80"), ttl=5.0), 4.0)).expect(object)
        assert ads.held.due() == 9.0
        play.feed(Elapsed(9.0)).expect(lost("a", why=TOO_OLD), Publish)
        assert endpoints(ads) == {"a": False}, "nothing behind it: not what there was"
        play.feed(Received(sent("3", assignment("a", "10.0.0.1:80")), 10.0)).expect(object, Publish)
        assert endpoints(ads) == {"a": True}
        play.feed(Elapsed(30.0)).expect(lost("a", of=CDS, why=TOO_OLD), object, Publish)
        assert not ads.held.config().clusters and not endpoints(ads), "its children go with it"


@both
def test_c45_time_goes_on_without_a_stream(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", cluster("a"), ttl=30.0), 0.0))
    ads.handle(Received(sent("1", cluster("b"), cluster("a"), ttl=30.0), 1.0))
    ads.handle(Disconnected())
    commands = ads.handle(Elapsed(31.0))
    assert [type(command) for command in commands] == [Withheld, Publish], "there is nobody to send to"
    assert ads.held.types[EDS].names == () and ads.held.due() is None
    sends = ads.handle(Connected(40.0))
    assert [getattr(send, "versions", ()) for send in sends] == [(), (), ()]


@both
def test_c45_one_without_a_time_to_live_lives_for_ever(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Received(sent("1", cluster("a"), ttl=30.0), 0.0))
    ads.handle(Received(sent("2", cluster("a")), 1.0))
    ads.handle(Received(sent("3", assignment("a", "10.0.0.1:80")), 1.0))
    assert ads.held.due() is None


@both
def test_c46_a_heartbeat_gives_time_and_nothing_else(make: type[Dialogue]) -> None:
    ads = make()
    with Playbook(ads.handle) as play:
        play.feed(Received(sent("1", cluster("a"), cluster("b"), ttl=10.0), 0.0)).expect(
            object, object, Publish
        )
        came = sent("1", assignment("a", "10.0.0.1:80"), assignment("b", "10.0.0.2:80"))
        play.feed(Received(came, 0.0)).expect(object, Publish)
        play.feed(Received(response("1", beat("a", 10.0), of=CDS), 5.0)).expect(object)
        assert set(ads.held.config().clusters) == {"a", "b"}, "what it does not name is not gone"
        play.feed(Received(response("1", beat("b", 10.0, "other"), of=CDS), 6.0)).expect(object)
        assert ads.held.due() == 10.0, "of another version: not of what is in force"
        play.feed(Elapsed(10.0)).expect(lost("b", of=CDS, why=TOO_OLD), object, Publish)
        assert ads.held.due() == 15.0
        play.feed(Received(response("1", beat("a", None), beat("z", 1.0), of=CDS), 11.0)).expect(object)
        assert ads.held.due() is None


def test_c46_a_heartbeat_beside_others_is_of_something_that_is_there() -> None:
    """In the state of the world what is not sent is removed; a heartbeat is sent."""
    ads = Sotw()
    ads.handle(Received(sent("1", cluster("a"), cluster("b"), cluster("c"), ttl=10.0), 0.0))
    mixed = sent("2", cluster("c", lb_policy=3))
    ads.handle(Received(replace(mixed, resources=(*mixed.resources, beat("a", 10.0))), 1.0))
    assert set(ads.held.config().clusters) == {"a", "c"}


@both
def test_c48_what_the_server_explains_is_not_waited_for(make: type[Dialogue]) -> None:
    ads = make()
    ads.handle(Connected(0.0))
    ads.handle(Received(sent("1", cluster("a")), 0.0))
    ads.handle(Received(Response(EDS, "1", "n", (), refusals=(Refusal("a", 14, "busy"),)), 1.0))
    assert ads.held.due() is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "came", "live", "forget", "over", "disconnected"]),
        st.sampled_from("abc"),
        st.one_of(st.none(), st.floats(0, 20)),
    ),
    max_size=30,
)


@given(steps=STEPS)
def test_c25_c45_nothing_is_over_before_its_time_or_twice(steps: list[tuple[str, str, float | None]]) -> None:
    timers, now = Timers(), 0.0
    for what, name, seconds in steps:
        match what:
            case "wait":
                timers.wait({name: inf if seconds is None else seconds}, now)
            case "came":
                timers.came([name])
            case "live":
                timers.live(name, seconds, now)
            case "forget":
                timers.forget(name)
            case "disconnected":
                timers.disconnected()
            case "over":
                now += seconds or 0.0
                due = timers.due()
                late = timers.over(now)
                assert bool(late) == (due is not None and due <= now)
        rest = timers.due()
        assert rest is None or what != "over" or rest > now
