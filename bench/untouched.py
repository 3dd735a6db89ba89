"""A native connect on a node without a daemon, and on one with a daemon and an app: the same cost."""

from __future__ import annotations

from pathlib import Path

from harness import OWN, Node, folder, interleaved, node, pin, probe, quiet, report, rounds

COUNT = 4000
SERVER = ("127.0.0.1", "6000")


def main() -> None:
    """Two sandboxes, in turns."""
    with folder() as path, Node(Path(path), start=False) as without, node() as with_daemon:
        quiet(without.sandbox)
        program = probe(path)
        for made in (without, with_daemon):
            made.host_start(*pin(0), program, "server", *SERVER)
        with_daemon.start("--ip", "1.1.1.1", OWN, program, "server", "0.0.0.0", "80")
        with_daemon.wait_service("1.1.1.1", 80)
        client = [*pin(0), program, "client", *SERVER, str(COUNT)]
        variants = {
            "native": lambda: float(without.host(*client).ok()),
            "with a daemon": lambda: float(with_daemon.host(*client).ok()),
        }
        found = interleaved(variants, rounds(21))
        goals = {"with a daemon": "1.00"}
        report(
            "A host program's connect, without and with a daemon", found, unit="µs", scale=1e-3, goals=goals
        )
        without.stop_apps()


if __name__ == "__main__":
    main()
