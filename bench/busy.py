"""The 99th percentile of connect() while 64 other apps connect too, against native under the same load.

Both crowds live all the time; the one whose turn it is not is stopped.  Each of the 64 connects RATE
times a second, so that the load is the same whatever a connect costs.  Goal: 1.20.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import AGAIN, OWN, Node, Process, interleaved, node, probe, report, rounds, wait_until

BUSY = 64
RATE = 40
"""Connects a second of each of the busy ones: together they take a quarter of two CPUs."""
COUNT, COUNT_RATE = 2000, 1000
"""Connects that are timed, and how many a second."""


@contextmanager
def awake(crowd: Sequence[Process]) -> Iterator[None]:
    """These run, for as long as the block does."""
    for each in crowd:
        os.kill(each.pid, signal.SIGCONT)
    try:
        yield
    finally:
        for each in crowd:
            os.kill(each.pid, signal.SIGSTOP)


def crowd(start: Callable[..., Process], *command: str) -> list[Process]:
    """64 of a kind, stopped."""
    made = [start(*command, str(RATE)) for _ in range(BUSY)]
    names = [Path(f"/proc/{each.pid}/comm") for each in made]
    wait_until(lambda: {name.read_text() for name in names} == {"probe\n"}, "all of them run")
    for each in made:
        os.kill(each.pid, signal.SIGSTOP)
    return made


def measure(made: Node, program: str) -> dict[str, list[tuple[float, float]]]:
    """Rounds of (median, 99th percentile)."""
    native, ours = ("127.0.0.1", "6000"), ("1.1.1.1", "80")
    made.host_start(program, "server", *native)
    made.start("--ip", ours[0], OWN, program, "server", "0.0.0.0", ours[1])
    made.wait_service(ours[0], int(ours[1]))
    hosts = crowd(made.host_start, program, "busy", *native)
    apps = crowd(made.start, OWN, program, "busy", *ours)
    timed = [program, "tail"]
    counts = [str(COUNT), str(COUNT_RATE)]

    def pair(text: str) -> tuple[float, float]:
        median, tail = text.split()
        return float(median), float(tail)

    def host() -> tuple[float, float]:
        with awake(hosts):
            return pair(made.host(*timed, *native, *counts).ok())

    def app() -> tuple[float, float]:
        with awake(apps):
            return pair(made.run(OWN, *timed, *ours, *counts).ok())

    try:
        return interleaved({"native": host, AGAIN: host, "own network": app}, rounds(11))
    finally:
        for each in (*hosts, *apps):
            os.kill(each.pid, signal.SIGCONT)


def main() -> None:
    """One table of the median, one of the tail."""
    with node() as made:
        found = measure(made, probe(made.base))
        for place, title in ((0, "median"), (1, "99th percentile")):
            values = {name: [each[place] for each in times] for name, times in found.items()}
            goals = {"own network": "≤ 1.20"} if place else None
            report(f"connect() beside {BUSY} busy apps, {title}", values, unit="µs", scale=1e-3, goals=goals)


if __name__ == "__main__":
    main()
