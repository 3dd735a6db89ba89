"""The chaos run: `chaos.py [--seconds 600] [--seed N] [--istio]`, as root.

One action after another (`actions.py`, drawn by the seed), as fast as the node recovers or faster, while
callers call.  Exit status 0: no call failed, and nothing was left behind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.sandbox import wait_until

from appswitch.interceptor.pool import QUARANTINE
from chaos.actions import ACTIONS
from chaos.world import Outcome, World

APPS = 14
"""Servers and callers."""
RECOVERY = 60.0
"""Seconds until the node is well again after everything, on a busy machine."""
REST = QUARANTINE + 5.0
"""Seconds more until a pool that `exhaust_ports` drained has rested: a daemon that starts begins anew."""
DRAINED = "no real port is left"


def run(world: World, seconds: float, seed: int) -> Counter[str]:
    """Chaos for that long; how often each action was done."""
    chance, done = random.Random(seed), Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        (action,) = chance.choices(tuple(ACTIONS), tuple(ACTIONS.values()))
        print(f"{time.monotonic():.3f} {action.__name__}", flush=True)
        action(world, chance)
        done[action.__name__] += 1
        if chance.random() < 0.6:
            _recover(world)
        time.sleep(chance.uniform(0, 0.5))
    _recover(world)
    return done


def _recover(world: World) -> None:
    wait_until(lambda: _well(world, DRAINED), "the node recovers", RECOVERY)
    wait_until(lambda: _well(world), "the pool has rested", REST)


def _well(world: World, but: str = "nothing") -> bool:
    """Daemon and holder answer, and have no problem but that one."""
    try:
        problems = world.node.get("health")["problems"]
        return bool(world.node.holder_pid()) and all(problem.startswith(but) for problem in problems)
    except OSError:  # between two daemons
        return False


def _only_the_living(world: World) -> None:
    """The daemon knows the apps that live, all of them, and no others."""
    known: list[str] = []

    def right() -> bool:
        known[:] = [app["appip"] for app in world.node.get("apps")]
        return len(known) == APPS

    try:
        wait_until(right, "only the apps that live are known", 20)
    except AssertionError as error:
        raise AssertionError(f"{error}\nknown: {known}\n{world.ended()}") from error


def trial(base: Path, seconds: float, seed: int, *, istio: bool) -> tuple[list[Outcome], list[str]]:
    """The whole: outcomes of all callers, and what was left behind."""
    world = World(base, istio=istio)
    leaks: list[str] = []
    try:
        world.start_callers()
        before = world.descriptors()
        done = run(world, seconds, seed)
        print(*(f"{name} {times}" for name, times in sorted(done.items())), sep=", ", flush=True)
        _only_the_living(world)
        after = world.descriptors()
        leaks += [
            f"{name} has {after.get(name)} descriptors, had {number}"
            for name, number in before.items()
            if after.get(name, 1 << 30) > number + 12  # connections of this moment, one of REST among them
        ]
        outcomes = world.outcomes()
    except BaseException:
        print(world.node.log()[-8000:], world.processes(), sep="\n", file=sys.stderr)
        raise
    finally:
        leaks += world.close()
    return outcomes, leaks


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the daemon's log there")
    parser.add_argument("--istio", action="store_true", help="with a replayed Istiod and the Istio agent")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="axc-"))
    base.chmod(0o755)
    now = time.time()
    print(
        f"{time.monotonic():.3f} is {time.strftime('%H:%M:%S', time.gmtime(now))}{f'{now % 1:.3f}'[1:]} UTC"
    )
    try:
        outcomes, leaks = trial(base, options.seconds, options.seed, istio=options.istio)
    finally:
        if options.log:
            shutil.copyfile(base / "daemon.log", options.log)
        shutil.rmtree(base, ignore_errors=True)
    print(*(outcome.line() for outcome in outcomes), sep="\n")
    failed = [f"{outcome.name}: {reason}" for outcome in outcomes for reason in outcome.failed]
    print(*failed, *(f"left behind: {leak}" for leak in leaks), sep="\n")
    calls = sum(outcome.calls for outcome in outcomes)
    longest = max(outcome.longest for outcome in outcomes)
    print(f"{calls} calls, {len(failed)} failed, the longest pause {longest:.2f} s, {len(leaks)} left behind")
    return int(bool(failed or leaks))


if __name__ == "__main__":
    sys.exit(main())
