"""UDP request and response, client and server both under `ax run`, against native: connected and not.

Client and server are pinned: to one CPU (no wake-up crosses CPUs: the clearest view of what we add), and
to two.  Goal: 1.20.
"""

from __future__ import annotations

from harness import AGAIN, OWN, Node, interleaved, node, pin, probe, report, rounds

COUNT = 10_000
GOALS = {"own network": "≤ 1.20", "empty namespace": "≤ 1.20"}


def measure(made: Node, program: str, how: str, server_cpu: int) -> dict[str, list[float]]:
    """Rounds of native, node's own network and empty namespace."""
    client = [*pin(0), program, how]
    server = [*pin(server_cpu), program, "udp-server"]
    made.host_start(*server, "127.0.0.1", "6000")
    made.start("--ip", "1.1.1.1", OWN, *server, "0.0.0.0", "80")
    made.start("--ip", "1.1.1.2", *server, "0.0.0.0", "80")
    made.wait_service("1.1.1.1", 80)
    made.wait_service("1.1.1.2", 80)
    variants = {
        "native": lambda: float(made.host(*client, "127.0.0.1", "6000", str(COUNT)).ok()),
        AGAIN: lambda: float(made.host(*client, "127.0.0.1", "6000", str(COUNT)).ok()),
        "own network": lambda: float(made.run(OWN, *client, "1.1.1.1", "80", str(COUNT)).ok()),
        "empty namespace": lambda: float(made.run(*client, "1.1.1.2", "80", str(COUNT)).ok()),
    }
    found = interleaved(variants, rounds(11))
    made.stop_apps()
    return found


def main() -> None:
    """Both placements of both kinds of client."""
    with node() as made:
        program = probe(made.base)
        for cpu, place in ((0, "one CPU"), (1, "two CPUs")):
            for how, kind in (("udp", "unconnected"), ("udp-connected", "connected")):
                found = measure(made, program, how, cpu)
                title = f"UDP there and back, {kind} client, pinned to {place}"
                report(title, found, unit="µs", scale=1e-3, goals=GOALS)


if __name__ == "__main__":
    main()
