"""kill -9 again and again, under load: no call may fail; the longest pause is printed.

`bench/kills.py [COUNT]` (default 200): the daemon, the holder, both at once, in turn; a supervisor with an
fd store (`tests/fd_store.py`, systemd's protocol) starts the daemon again.  Needs root.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from chaos.world import World
from e2e.sandbox import wait_until

VICTIMS = {"daemon": {"holder": False}, "holder": {"daemon": False}, "both": {}}


def well(world: World) -> bool:
    """Daemon and holder answer."""
    try:
        return bool(world.node.holder_pid()) and not world.node.get("health")["problems"]
    except OSError:  # between two daemons
        return False


def main(count: int) -> int:
    """Exit status 0: no call failed."""
    with tempfile.TemporaryDirectory(prefix="axk-") as folder:
        base = Path(folder)
        base.chmod(0o755)
        world = World(base)
        try:
            world.start_callers()
            for number in range(count):
                world.node.kill(**VICTIMS[list(VICTIMS)[number % len(VICTIMS)]])
                wait_until(lambda: well(world), "the next ones", 60)
            outcomes = world.outcomes()
        finally:
            leaks = world.close()
    print("| client | calls | failed | longest |\n|---|---|---|---|")
    for each in outcomes:
        print(f"| {each.name} | {each.calls} | {len(each.failed)} | {each.longest:.2f} s |")
    calls, failed = sum(each.calls for each in outcomes), sum(len(each.failed) for each in outcomes)
    pauses = {
        network: max(each.longest for each in outcomes if f"in {network}" in each.name)
        for network in ("empty", "own")
    }
    print(
        f"\n{count} kills: {calls} calls, {failed} failed; the longest pause {pauses['empty']:.2f} s in an "
        f"empty namespace, {pauses['own']:.2f} s in the node's network; left behind: {leaks or 'nothing'}"
    )
    return int(bool(failed or leaks))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
