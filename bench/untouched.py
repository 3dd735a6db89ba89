"""A native connect on a node without a daemon, and on nodes with one: the same cost.

With an app that has connect-wait, `sk_lookup` sees each SYN of the node: what that costs is shown as well.
"""

from __future__ import annotations

from pathlib import Path

from harness import AGAIN, OWN, Node, folder, interleaved, node, pin, probe, quiet, report, rounds

COUNT = 4000
SERVER = ("127.0.0.1", "6000")


def main() -> None:
    """Two sandboxes, in turns."""
    with folder() as path, Node(Path(path), start=False) as without, node() as with_daemon, node() as waiting:
        quiet(without.sandbox)
        program = probe(path)
        for made in (without, with_daemon, waiting):
            made.host_start(*pin(0), program, "server", *SERVER)
        for made, flags in (with_daemon, []), (waiting, ["--connect-wait", "10s"]):
            made.start("--ip", "1.1.1.1", OWN, *flags, program, "server", "0.0.0.0", "80")
            made.wait_service("1.1.1.1", 80)
        client = [*pin(0), program, "client", *SERVER, str(COUNT)]
        variants = {
            "native": lambda: float(without.host(*client).ok()),
            "with a daemon": lambda: float(with_daemon.host(*client).ok()),
            "with an app that waits": lambda: float(waiting.host(*client).ok()),
            AGAIN: lambda: float(without.host(*client).ok()),
        }
        found = interleaved(variants, rounds(21))
        goals = {"with a daemon": "1.00"}
        report(
            "A host program's connect, without and with a daemon", found, unit="µs", scale=1e-3, goals=goals
        )
        without.stop_apps()


if __name__ == "__main__":
    main()
