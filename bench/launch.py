"""`ax run true` over `true`: what starting a program under AppSwitch costs.  Goal: 15 ms."""

from __future__ import annotations

import statistics

from e2e.node import AX
from harness import OWN, interleaved, node, probe, report, rounds

COUNT = 30


def main() -> None:
    """Times fork + exec + wait by the probe, natively and under `ax run`."""
    with node() as made:
        program = probe(made.base)
        launch = [program, "launch", str(COUNT)]
        variants = {
            "native": lambda: float(made.host(*launch, "true").ok()),
            "own network": lambda: float(made.host(*launch, AX, "run", OWN, "true").ok()),
            "empty namespace": lambda: float(made.host(*launch, AX, "run", "true").ok()),
        }
        found = interleaved(variants, rounds(7))
        report("Launch: `true` and `ax run true`", found, unit="ms", scale=1e-6)
        base = statistics.median(found["native"])
        for name in ("own network", "empty namespace"):
            over = (statistics.median(found[name]) - base) * 1e-6
            print(f"- {name}: {over:.1f} ms over `true` (goal ≤ 15 ms)")


if __name__ == "__main__":
    main()
