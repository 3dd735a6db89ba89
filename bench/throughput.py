"""Bytes per second of one established connection (iperf3), both sides under `ax run`, against native."""

from __future__ import annotations

import json

from harness import AGAIN, OWN, interleaved, node, pin, report, rounds

SECONDS = 1


def gigabits(output: str) -> float:
    """Received Gbit/s of an `iperf3 -J` report."""
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


def main() -> None:
    """Three servers on one CPU, clients in turn on the other."""
    with node() as made:
        server = [*pin(1), "iperf3", "-s"]
        made.host_start(*server, "-p", "5201")
        made.start("--ip", "1.1.1.1", OWN, *server)
        made.start("--ip", "1.1.1.2", *server)
        made.wait_service("1.1.1.1", 5201)
        made.wait_service("1.1.1.2", 5201)
        client = [*pin(0), "iperf3", "-J", "-t", str(SECONDS), "-c"]
        variants = {
            "native": lambda: gigabits(made.host(*client, "127.0.0.1").ok()),
            AGAIN: lambda: gigabits(made.host(*client, "127.0.0.1").ok()),
            "own network": lambda: gigabits(made.run(OWN, *client, "1.1.1.1").ok()),
            "empty namespace": lambda: gigabits(made.run(*client, "1.1.1.2").ok()),
        }
        found = interleaved(variants, rounds(21))
        goals = {"own network": "1.00 ± 0.03", "empty namespace": "1.00 ± 0.03"}
        report("Throughput of one connection (iperf3)", found, unit="Gbit/s", goals=goals)


if __name__ == "__main__":
    main()
