"""What the conformance suite's server answers by itself."""

from __future__ import annotations

from appswitch.xds.conformance.mesh import Mesh, View
from appswitch.xds.conformance.meshes import A1, ONE, TWO
from appswitch.xds.conformance.script import Push, push
from appswitch.xds.conformance.transcript import Mode, Request
from appswitch.xds.conformance.wire import name_of
from appswitch.xds.make import assignment, cluster
from appswitch.xds.resources import CDS, EDS, NDS


def names(answer: Push | None) -> list[str]:
    assert answer is not None
    return [name_of(raw) for raw in answer.resources]


def test_everything_once_and_what_is_named_and_not_sent() -> None:
    mesh, view = Mesh(Mode.SOTW, TWO), View()
    assert names(mesh.answer(view, Request(0, 0, CDS))) == ["a", "b"]
    assert mesh.answer(view, Request(0, 0, CDS, "n1", "1")) is None
    assert names(mesh.answer(view, Request(0, 0, EDS, names=("a",)))) == ["a"]
    assert mesh.answer(view, Request(0, 0, EDS, "n2", "1", ("a",))) is None
    assert names(mesh.answer(view, Request(0, 0, EDS, "n2", "1", ("a", "b")))) == ["a", "b"]
    assert mesh.answer(view, Request(0, 0, NDS)) is None


def test_the_last_ack_once_more_is_a_question() -> None:
    """Envoy waits for the endpoints of a cluster that changed."""
    mesh, view = Mesh(Mode.SOTW, ONE), View()
    assert names(mesh.answer(view, Request(0, 0, EDS, names=("a",)))) == ["a"]
    assert mesh.answer(view, Request(0, 0, EDS, "n1", "1", ("a",))) is None
    assert names(mesh.answer(view, Request(0, 0, EDS, "n1", "1", ("a",)))) == ["a"]


def test_what_a_script_sends_is_the_truth() -> None:
    mesh = Mesh(Mode.SOTW, TWO)
    mesh.take(push(CDS, "2", cluster("c")))
    mesh.take(push(EDS, "3", assignment("c", A1)))
    answer = mesh.answer(View(), Request(0, 0, CDS))
    assert names(answer) == ["c"] and answer is not None and answer.version == "2"
    assert names(mesh.answer(View(), Request(0, 0, EDS, names=("a", "c")))) == ["a", "c"]


def test_delta_tells_what_is_no_more() -> None:
    mesh, view = Mesh(Mode.DELTA, TWO), View()
    mesh.take(Push(CDS, "2", removed=("b",)))
    answer = mesh.answer(view, Request(0, 0, CDS, versions={"a": "1", "b": "1"}))
    assert names(answer) == ["a"] and answer is not None and answer.removed == ("b",)
    assert names(mesh.answer(view, Request(0, 0, EDS, names=("a",)))) == ["a"]
    assert names(mesh.answer(view, Request(0, 0, EDS, names=("b",)))) == ["b"]
    assert mesh.answer(view, Request(0, 0, EDS, "n1")) is None
    assert names(mesh.answer(view, Request(0, 0, EDS, names=("b",)))) == ["b"]  # said again: sent again
