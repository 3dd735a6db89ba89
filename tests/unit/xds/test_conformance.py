"""The conformance suite, against our own client and against clients with one fault each."""

from __future__ import annotations

import asyncio

import pytest
from xds_mutants import MUTANTS
from xds_subject import Inside

from appswitch.xds.conformance.catalogue import CASES
from appswitch.xds.conformance.own import Parts
from appswitch.xds.conformance.script import Case
from appswitch.xds.conformance.suite import judge
from appswitch.xds.conformance.verdict import Outcome, Verdict

PATIENCE = 15.0
"""Seconds in which a client in our own process does anything, whatever else the machine does."""
SHORT = 4.0
"""And in which it does nothing, if it has a fault."""
AT_ONCE = 12
GIVES_UP = "C44"
"""The one case whose fault ends the client."""
JUDGED = [case for case in CASES if not case.reason]


def by_id(case: Case) -> str:
    return case.id


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, bool], Outcome]:
    """By case, and whether the client is a mutant.  All at once: they mostly wait."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case, mutant: bool) -> Outcome:
        parts = MUTANTS[case.id] if mutant else Parts()
        async with slots:
            return await judge(case, lambda: Inside(parts), SHORT if mutant else PATIENCE)

    async def all_of_them() -> dict[tuple[str, bool], Outcome]:
        keys = [(case, mutant) for case in JUDGED for mutant in (False, True)]
        found = await asyncio.gather(*(one(*key) for key in keys))
        return {(case.id, mutant): outcome for (case, mutant), outcome in zip(keys, found, strict=True)}

    return asyncio.run(all_of_them())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", JUDGED, ids=by_id)
def test_our_own_client(case: Case, verdicts: dict[tuple[str, bool], Outcome]) -> None:
    outcome = verdicts[case.id, False]
    assert outcome.verdict is Verdict.PASSED, outcome.detail


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", JUDGED, ids=by_id)
def test_a_client_with_that_fault(case: Case, verdicts: dict[tuple[str, bool], Outcome]) -> None:
    outcome = verdicts[case.id, True]
    assert outcome.verdict is Verdict.FAILED
    assert case.id == GIVES_UP or "the client ended" not in outcome.detail, "that is another fault"
