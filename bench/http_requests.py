"""nginx and wrk, both under `ax run`, against native: one request per connection, and keep-alive.

wrk has one CPU and nginx the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness import AGAIN, OWN, Node, interleaved, nginx_argv, node, pin, report, rounds

SECONDS = 1
CONNECTIONS = 16


def requests_per_second(output: str) -> float:
    """The figure in wrk's report; AssertionError when a request failed."""
    assert "Socket errors" not in output and "Non-2xx" not in output, output
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match, output
    return float(match[1])


def variants(made: Node, *wrk_args: str) -> dict[str, Callable[[], float]]:
    """wrk against the nginx of its own kind."""
    wrk = [*pin(0), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *wrk_args]
    return {
        "native": lambda: requests_per_second(made.host(*wrk, "http://127.0.0.1:8080/").ok()),
        AGAIN: lambda: requests_per_second(made.host(*wrk, "http://127.0.0.1:8080/").ok()),
        "own network": lambda: requests_per_second(made.run(OWN, *wrk, "http://1.1.1.1:8080/").ok()),
        "empty namespace": lambda: requests_per_second(made.run(*wrk, "http://1.1.1.2:8080/").ok()),
    }


def main() -> None:
    """Starts three nginx and measures both ways."""
    with node() as made:
        argv = {
            name: pin(1) + nginx_argv(made.base / name, "x" * 1024, port=8080, workers=1, log=False)
            for name in ("native", "own", "empty")
        }
        made.host_start(*argv["native"])
        made.start("--ip", "1.1.1.1", OWN, *argv["own"])
        made.start("--ip", "1.1.1.2", *argv["empty"])
        made.wait_service("1.1.1.1", 8080)
        made.wait_service("1.1.1.2", 8080)
        found = interleaved(variants(made, "-H", "Connection: close"), rounds(21))
        goals = {"own network": "≥ 0.85"}
        report(
            "HTTP, a new connection per request (wrk, nginx, 1 KiB)", found, unit="requests/s", goals=goals
        )
        found = interleaved(variants(made), rounds(21))
        goals = {"own network": "1.00 ± 0.03", "empty namespace": "1.00 ± 0.03"}
        report("HTTP, keep-alive (wrk, nginx, 1 KiB)", found, unit="requests/s", goals=goals)


if __name__ == "__main__":
    main()
