"""socket + connect + close, client and server both under `ax run`, against native.

Client and server are pinned: to one CPU (no wake-up crosses CPUs: the clearest view of what we add), and
to two.  Goals: 1.20 in the node's own network, 3.5 in an empty namespace.
"""

from __future__ import annotations

from harness import OWN, Node, interleaved, node, pin, probe, report, rounds

COUNT = 4000
GOALS = {"own network": "≤ 1.20", "empty namespace": "≤ 3.5"}


def measure(made: Node, program: str, client_cpu: int, server_cpu: int) -> dict[str, list[float]]:
    """Rounds of native, node's own network and empty namespace."""
    native = ("127.0.0.1", "6000")
    made.host_start(*pin(server_cpu), program, "server", *native)
    made.start("--ip", "1.1.1.1", OWN, *pin(server_cpu), program, "server", "0.0.0.0", "80")
    made.start("--ip", "1.1.1.2", *pin(server_cpu), program, "server", "0.0.0.0", "80")
    made.wait_service("1.1.1.1", 80)
    made.wait_service("1.1.1.2", 80)
    client = [*pin(client_cpu), program, "client"]
    variants = {
        "native": lambda: float(made.host(*client, *native, str(COUNT)).ok()),
        "own network": lambda: float(made.run(OWN, *client, "1.1.1.1", "80", str(COUNT)).ok()),
        "empty namespace": lambda: float(made.run(*client, "1.1.1.2", "80", str(COUNT)).ok()),
    }
    found = interleaved(variants, rounds(21))
    made.stop_apps()
    return found


def main() -> None:
    """Both placements."""
    with node() as made:
        program = probe(made.base)
        for title, cpus in (("one CPU", (0, 0)), ("two CPUs", (0, 1))):
            found = measure(made, program, *cpus)
            report(f"socket + connect + close, pinned to {title}", found, unit="µs", scale=1e-3, goals=GOALS)


if __name__ == "__main__":
    main()
