"""Plays cases to a client, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from appswitch.errors import UsageError
from appswitch.xds.conformance.player import PATIENCE, Player
from appswitch.xds.conformance.script import Case, Fault, Inapplicable
from appswitch.xds.conformance.subject import Subject
from appswitch.xds.conformance.verdict import Outcome, Verdict


def select(cases: Sequence[Case], text: str) -> list[Case]:
    """Those of `C01,C02` in their own order; all for an empty text.  Raises UsageError."""
    wanted = {part.strip().upper() for part in text.split(",") if part.strip()}
    if unknown := wanted - {case.id for case in cases}:
        raise UsageError(
            f"--case {', '.join(sorted(unknown))}: no such case; there are {cases[0].id} to {cases[-1].id}"
        )
    return [case for case in cases if not wanted or case.id in wanted]


async def judge(case: Case, make: Callable[[], Subject], patience: float = PATIENCE) -> Outcome:
    """Play all of a case's scripts; `make` gives each a fresh client.  Raises Unavailable."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    if case.reason:
        return Outcome(case, Verdict.NOT_APPLICABLE, case.reason)
    if case.needs_probe and not make().can_probe:
        return Outcome(case, Verdict.NOT_APPLICABLE, "nothing of it is on the wire: it needs --probe")
    left_out, unprobed, judged = "", False, 0
    for script in case.scripts:
        player = Player(case.id, script, make(), patience)
        try:
            await player.play()
            judged += 1
        except Inapplicable as reason:
            left_out = str(reason)
        except Fault as fault:
            return Outcome(case, Verdict.FAILED, f"{script.mode.value}: {fault}", loop.time() - begun)
        unprobed = unprobed or player.unprobed
    seconds = loop.time() - begun
    if not judged:
        return Outcome(case, Verdict.NOT_APPLICABLE, left_out, seconds)
    notes = [left_out] if left_out else []
    if unprobed:
        notes.append("on the wire alone: what was applied needs --probe")
    return Outcome(case, Verdict.PASSED, "; ".join(notes), seconds)


async def run(
    cases: Sequence[Case],
    make: Callable[[], Subject],
    *,
    jobs: int = 1,
    patience: float = PATIENCE,
    report: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """All outcomes in the cases' order; `report` hears each as it comes.  Raises Unavailable."""
    slots = asyncio.Semaphore(jobs)

    async def one(case: Case) -> Outcome:
        async with slots:
            outcome = await judge(case, make, patience)
        report(outcome)
        return outcome

    return list(await asyncio.gather(*(one(case) for case in cases)))
