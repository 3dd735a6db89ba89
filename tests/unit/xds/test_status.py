"""How resources stand: the words of the client status API for what a server said and sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.xds.test_delta import update

from appswitch.xds.ads import Connected, Elapsed, Received
from appswitch.xds.delta import Delta
from appswitch.xds.dialogue import Dialogue
from appswitch.xds.make import assignment, cluster, response
from appswitch.xds.resources import CDS, EDS, SHORT, RawResource, Refusal, Response
from appswitch.xds.sotw import Sotw
from appswitch.xds.status import ResourceStatus, Status, keys, status


class Talk:
    """One response a second, the first at 1.0."""

    def __init__(self, ads: Dialogue) -> None:
        self.ads, self.now = ads, 0.0
        ads.handle(Connected())

    def hear(self, said: Response) -> None:
        self.now += 1
        self.ads.handle(Received(said, self.now))

    def all(self) -> dict[str, ResourceStatus]:
        """By TYPE/NAME."""
        types = self.ads.held.types
        return {f"{SHORT[url]}/{name}": status(types[url], SHORT[url], name) for url, name in keys(types)}

    def words(self) -> dict[str, str]:
        return {key: found.status.value for key, found in self.all().items()}


BOTH = pytest.mark.parametrize("kind", [Sotw, Delta])
BAD = RawResource(CDS, b"\x0a\x01a\xff")
"""A cluster whose name, `a`, can be read, and nothing else."""


@BOTH
def test_asked_for_then_there(kind: type[Dialogue]) -> None:
    talk = Talk(kind())
    talk.hear(response("7", cluster("a")))
    assert talk.all() == {
        "cds/a": ResourceStatus("cds", "a", Status.ACKED, "7", 1.0),
        "eds/a": ResourceStatus("eds", "a", Status.REQUESTED),
    }
    talk.hear(response("8", assignment("a", "10.0.0.1:80")))
    assert talk.all()["eds/a"] == ResourceStatus("eds", "a", Status.ACKED, "8", 2.0)
    talk.hear(response("9", assignment("a", "10.0.0.1:80")))  # the same again: a newer version, no younger
    assert talk.all()["eds/a"] == ResourceStatus("eds", "a", Status.ACKED, "9", 2.0)


@BOTH
def test_a_nack_stays_until_a_good_one_comes(kind: type[Dialogue]) -> None:
    talk = Talk(kind())
    talk.hear(response("1", cluster("a")))
    talk.hear(response("2", BAD))
    found = talk.all()["cds/a"]
    assert (found.status, found.version, found.since) == (Status.NACKED, "1", 1.0)
    assert (found.error_version, found.error_at) == ("2", 2.0)
    assert found.error
    if kind is Delta:  # another resource's success says nothing about this one
        talk.hear(response("3", cluster("b")))
        assert talk.words()["cds/a"] == "NACKED"
    talk.hear(response("4", cluster("a", lb_policy=3)))
    assert talk.all()["cds/a"] == ResourceStatus("cds", "a", Status.ACKED, "4", talk.now)


def test_a_bad_one_that_is_sent_no_more_is_forgotten() -> None:
    talk = Talk(Sotw())
    talk.hear(response("1", BAD))
    assert talk.words() == {"cds/a": "NACKED"}
    talk.hear(response("2", cluster("b")))
    assert set(talk.words()) == {"cds/b", "eds/b"}


def test_one_without_a_readable_name_stands_there_until_the_next_response() -> None:
    talk = Talk(Sotw())
    talk.hear(response("1", RawResource(CDS, b"\xff"), cluster("b")))
    assert talk.words() == {"cds/b": "ACKED", "cds/resource 0 of 2": "NACKED", "eds/b": "REQUESTED"}
    talk.hear(response("2", cluster("b")))
    assert talk.words() == {"cds/b": "ACKED", "eds/b": "REQUESTED"}


def test_removed_and_refused_resources() -> None:
    talk = Talk(Delta())
    talk.hear(update("1", cluster("a"), cluster("b"), cluster("c")))
    talk.hear(update("2", assignment("a", "10.0.0.1:80"), assignment("b", "10.0.0.1:80")))
    talk.hear(update("3", of=EDS, removed=("a",)))
    refused = (Refusal("b", 14, "no answer from the registry"), Refusal("c", 5, "no such service"))
    talk.hear(replace(response("4", of=EDS), refusals=refused))
    found = talk.all()
    assert found["eds/a"].status is Status.DOES_NOT_EXIST
    assert (found["eds/b"].status, found["eds/b"].version) == (Status.RECEIVED_ERROR, "2")
    assert found["eds/b"].error == "no answer from the registry"
    assert (found["eds/c"].status, found["eds/c"].since) == (Status.DOES_NOT_EXIST, None)
    talk.hear(update("5", assignment("a", "10.0.0.2:80")))
    assert talk.words()["eds/a"] == "ACKED"
    talk.hear(update("6", of=CDS, removed=("a", "b", "c")))
    assert talk.words() == {}


def test_a_resource_s_own_version_counts() -> None:
    talk = Talk(Delta())
    talk.hear(update("7", cluster("a"), each="own"))
    assert talk.all()["cds/a"].version == "own"


@BOTH
def test_what_does_not_come_in_time_does_not_exist(kind: type[Dialogue]) -> None:
    talk = Talk(kind())
    talk.hear(response("1", cluster("a")))
    due = talk.ads.held.due()
    assert due is not None
    talk.ads.handle(Elapsed(due))
    found = talk.all()["eds/a"]
    assert found.status is Status.DOES_NOT_EXIST
    assert found.error
    talk.hear(response("2", assignment("a", "10.0.0.1:80")))
    assert talk.words()["eds/a"] == "ACKED"
