"""The ADS dialogue, case by case (the numbers are those of docs on xDS conformance: C01 …)."""

from __future__ import annotations

from playbook import Playbook

from appswitch.errors import InvalidInput
from appswitch.xds.ads import Connected, Disconnected, Ignored, Publish, Received, Rejected, Send
from appswitch.xds.decode import decode_resource
from appswitch.xds.held import Held
from appswitch.xds.make import assignment, cluster, http_listener, name_table, response, routes, tcp_listener
from appswitch.xds.resources import CDS, EDS, LDS, NDS, RDS, RawResource, Response
from appswitch.xds.sotw import Sotw

START = (Send(CDS, first=True), Send(LDS), Send(NDS))


def started() -> tuple[Sotw, Playbook]:
    ads = Sotw()
    play = Playbook(ads.handle)
    play.feed(Connected()).expect(*START)
    return ads, play


def test_first_request_alone_has_the_node_and_children_are_asked_for_once_known() -> None:  # C01, C02, C13
    with started()[1] as play:
        play.feed(Received(response("1", cluster("b"), cluster("a")))).expect(
            Send(CDS, "1", "n1"), Send(EDS, names=("a", "b")), Publish
        )
        play.feed(Received(response("1", assignment("a", "10.0.0.1:80")))).expect(
            Send(EDS, "1", "n1", ("a", "b")), Publish
        )
        play.feed(Received(response("1", http_listener(80, "80")))).expect(
            Send(LDS, "1", "n1"), Send(RDS, names=("80",)), Publish
        )
        play.feed(Received(response("1", routes("80", web=("10.1.1.1", "a"))))).expect(
            Send(RDS, "1", "n1", ("80",)), Publish
        )
        play.feed(Received(response("1", name_table(web="10.1.1.1")))).expect(Send(NDS, "1", "n1"), Publish)


def test_bad_first_response_is_rejected_without_a_version() -> None:  # C03, C07
    ads, play = started()
    bad = RawResource(CDS, cluster("good").value + b"\xff")
    with play:
        play.feed(Received(response("1", bad))).expect(Send, Rejected)
    nack = ads.handle(Received(response("2", bad)))[0]
    assert isinstance(nack, Send)
    assert (nack.version, nack.nonce) == ("", "n2")
    assert nack.error.startswith("good: ")
    assert not ads.held.config().clusters


def test_one_bad_of_many_keeps_its_last_good_and_the_others_apply() -> None:  # C04, C05, C06
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a"), cluster("b")))).expect(Send, Send, Publish)
        first = ads.held.config().clusters["a"]
        bad = RawResource(CDS, cluster("a").value[:-1])
        play.feed(Received(response("2", bad, cluster("b", lb_policy=3)))).expect(Send, Rejected, Publish)
        assert ads.held.config().clusters["a"] is first
        assert ads.held.config().clusters["b"].balance.name == "RANDOM"
        play.feed(Received(response("3", cluster("a", lb_policy=3), cluster("b", lb_policy=3)))).expect(
            Send(CDS, "3", "n3"), Publish
        )


def test_nack_carries_the_last_accepted_version_and_is_said_once() -> None:  # C04, C52
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a")))).expect(Send, Send, Publish)
        bad = RawResource(CDS, cluster("a").value[:-1])
        play.feed(Received(response("2", bad))).expect(Send, Rejected)
        commands = ads.handle(Received(response("3", bad)))
        assert len(commands) == 1
        assert isinstance(commands[0], Send)
        assert (commands[0].version, commands[0].nonce, bool(commands[0].error)) == ("1", "n3", True)


def test_c24_bytes_cut_anywhere_are_rejected_and_the_last_good_ones_stay() -> None:
    ads, _ = started()
    value = cluster("a", alt_stat_name="x" * 20).value
    ads.handle(Received(response("1", RawResource(CDS, value))))
    held = ads.held.config().clusters["a"]
    for end in range(len(value)):
        cut = value[:end]
        try:
            decode_resource(CDS, cut)
            continue  # whole fields are left: another cluster, and a good one
        except InvalidInput:
            pass
        nack = ads.handle(Received(response(f"cut at {end}", RawResource(CDS, cut))))[0]
        assert isinstance(nack, Send) and nack.error and nack.version == "1"
        assert ads.held.config().clusters["a"] is held


def test_long_reasons_are_cut() -> None:  # C07
    ads, _ = started()
    bad = [RawResource(CDS, cluster(f"cluster-{number}").value + b"\xff") for number in range(200)]
    command = ads.handle(Received(response("1", *bad)))[0]
    assert isinstance(command, Send)
    assert len(command.error) == 2000


def test_types_keep_their_own_nonces() -> None:  # C08, C09
    with started()[1] as play:
        play.feed(Received(response("1", cluster("a")))).expect(Send, Send, Publish)
        play.feed(Received(response("7", tcp_listener("10.1.1.1", 80, a=1)))).expect(
            Send(LDS, "7", "n7"), Publish
        )
        play.feed(Received(response("2", cluster("a")))).expect(Send(CDS, "2", "n2"))


def test_new_and_removed_clusters_change_the_subscription() -> None:  # C10, C11, C12, C14
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a")))).expect(Send, Send, Publish)
        play.feed(Received(response("1", assignment("a", "10.0.0.1:80")))).expect(Send, Publish)
        play.feed(Received(response("2", cluster("a"), cluster("b")))).expect(
            Send(CDS, "2", "n2"), Send(EDS, "1", "n1", ("a", "b")), Publish
        )
        play.feed(Received(response("3", cluster("b")))).expect(
            Send(CDS, "3", "n3"), Send(EDS, "1", "n1", ("b",)), Publish
        )
        assert "a" not in ads.held.config().assignments


def test_no_clusters_left_unsubscribes_but_never_begins_with_nothing() -> None:  # C13, C16
    ads, play = started()
    with play:
        play.feed(Received(response("1", of=CDS))).expect(Send(CDS, "1", "n1"))
        play.feed(Received(response("2", cluster("a")))).expect(Send, Send(EDS, names=("a",)), Publish)
        play.feed(Received(response("3", of=CDS))).expect(Send(CDS, "3", "n3"), Send(EDS), Publish)
        assert not ads.held.config().clusters


def test_endpoints_are_partial_and_may_be_empty() -> None:  # C15, C17, C18
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a"), cluster("b")))).expect(Send, Send, Publish)
        both = response("1", assignment("a", "10.0.0.1:80"), assignment("b", "10.0.0.2:80"))
        play.feed(Received(both)).expect(Send, Publish)
        play.feed(Received(response("2", assignment("a")))).expect(Send, Publish)
        play.feed(Received(response("3", of=EDS))).expect(Send(EDS, "3", "n3", ("a", "b")))
        assert ads.held.config().assignments["a"].localities == ()
        assert ads.held.config().assignments["b"].localities


def test_what_nobody_asked_for_is_ignored() -> None:  # C19, C21, C53
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a")))).expect(Send, Send, Publish)
        play.feed(Received(response("1", assignment("z", "10.0.0.1:80")))).expect(
            Send(EDS, "1", "n1", ("a",))
        )
        assert not ads.held.config().assignments
        play.feed(Received(Response("type.googleapis.com/x.Y", "1", "n", ()))).expect(
            Ignored("type.googleapis.com/x.Y")
        )


def test_the_same_name_twice_and_a_foreign_type_are_rejected() -> None:  # C20, C22
    ads, play = started()
    twice = response("1", cluster("a"), cluster("a", lb_policy=3), cluster("b"))
    with play:
        play.feed(Received(twice)).expect(
            Send(CDS, "", "n1", error="a: it stands twice in one response"),
            Rejected(CDS, "1", (("a", "it stands twice in one response"),)),
            Send(EDS, names=("b",)),
            Publish,
        )
        foreign = RawResource(LDS, cluster("c").value)
        play.feed(Received(response("2", cluster("b"), foreign, of=CDS))).expect(Send, Rejected)
        assert set(ads.held.config().clusters) == {"b"}


def test_an_unreadable_name_removes_nothing() -> None:
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a"), cluster("b")))).expect(Send, Send, Publish)
        play.feed(Received(response("2", cluster("a"), RawResource(CDS, b"\xff\xff")))).expect(Send, Rejected)
        assert set(ads.held.config().clusters) == {"a", "b"}


def test_everything_is_asked_for_again_after_a_reconnect_and_unchanged_bytes_are_not_decoded() -> None:  # C40
    decoded: list[str] = []

    def decode(type_url: str, value: bytes) -> object:
        decoded.append(type_url)
        return original(type_url, value)

    from appswitch.xds.decode import decode_resource as original

    ads = Sotw(Held(decode))  # type: ignore[arg-type]
    pushes = (
        response("1", cluster("a")),
        response("1", assignment("a", "10.0.0.1:80")),
        response("1", http_listener(80, "80")),
        response("1", routes("80", web=("10.1.1.1", "a"))),
        response("1", name_table(web="10.1.1.1")),
    )
    for push in pushes:
        ads.handle(Received(push))
    assert len(decoded) == 5
    with Playbook(ads.handle) as play:
        play.feed(Disconnected())
        play.feed(Connected()).expect(
            Send(CDS, "1", first=True),
            Send(EDS, "1", names=("a",)),
            Send(LDS, "1"),
            Send(RDS, "1", names=("80",)),
            Send(NDS, "1"),
        )
        for push in pushes:
            play.feed(Received(push)).expect(Send)
    assert len(decoded) == 5


def test_deleted_while_away_goes_with_its_children() -> None:  # C14, C40
    ads, play = started()
    with play:
        play.feed(Received(response("1", cluster("a"), cluster("b")))).expect(Send, Send, Publish)
        play.feed(Received(response("1", assignment("a", "10.0.0.1:80")))).expect(Send, Publish)
        play.feed(Disconnected())
        play.feed(Connected()).expect(Send, Send, Send, Send)
        play.feed(Received(response("2", cluster("b")))).expect(Send, Send(EDS, "1", "", ("b",)), Publish)
        assert not ads.held.config().assignments


def test_a_heartbeat_changes_nothing() -> None:  # C46
    with started()[1] as play:
        play.feed(Received(response("1", name_table(web="10.1.1.1")))).expect(Send, Publish)
        play.feed(Received(response("2", name_table(web="10.1.1.1"), RawResource("", b"")))).expect(
            Send(NDS, "2", "n2")
        )
        play.feed(Received(response("1", cluster("a")))).expect(Send, Send(EDS, names=("a",)), Publish)
        play.feed(Received(response("2", RawResource("", b"", "a"), of=CDS))).expect(Send(CDS, "2", "n2"))


def test_what_is_awaited_is_named() -> None:
    ads, _ = started()
    assert ads.held.config().awaited == ("cds", "lds")
    ads.handle(Received(response("1", cluster("a"))))
    ads.handle(Received(response("1", of=LDS)))
    assert ads.held.config().awaited == ("a",)
    ads.handle(Received(response("1", assignment("a"))))
    assert ads.held.config().awaited == ()
