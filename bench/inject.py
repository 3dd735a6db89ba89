"""What injection alone costs: socket + close and socket + connect + close, by the holder against native.

No BPF programs are attached: the difference is the holder's.  Placements: where the scheduler puts
everything, and program and holder on one CPU.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address

from harness import folder, interleaved, pin, probe, report, rounds, wait_until
from kernel.holding import Node, done, node

COUNT = 4000


def injected(made: Node, *command: str) -> float:
    """One run of a program in an empty namespace."""
    process, notify, channel = made.filtered(*command)
    with channel, made.client() as client:
        client.add(1, 0, IPv4Address("1.1.1.1"), notify)
        channel.send(b"g")
    os.close(notify)
    return float(done(process))


def native(made: Node, *command: str) -> float:
    """One run of a program in the node's own network."""
    inside = ["nsenter", f"--net=/proc/{made.namespace.pid}/ns/net"]
    return float(subprocess.run([*inside, *command], check=True, capture_output=True, timeout=60).stdout)


def variants(made: Node, *command: str) -> dict[str, Callable[[], float]]:
    """The same command both ways."""
    return {"native": lambda: native(made, *command), "injected": lambda: injected(made, *command)}


def measure(made: Node, program: str, where: str, prefix: list[str]) -> None:
    """Both kinds of turn in one placement."""
    sockets = [*prefix, program, "sockets", str(COUNT)]
    report(
        f"socket + close, {where}", interleaved(variants(made, *sockets), rounds(11)), unit="µs", scale=1e-3
    )
    address = ("127.0.0.1", "6000")
    inside = ["nsenter", f"--net=/proc/{made.namespace.pid}/ns/net"]
    server = subprocess.Popen([*inside, *prefix, program, "server", *address])
    once = [*inside, program, "client", *address, "1"]
    try:
        wait_until(lambda: subprocess.run(once, capture_output=True, timeout=10).returncode == 0, "a server")
        dial = [*prefix, program, "client", *address, str(COUNT)]
        report(
            f"socket + connect + close, {where}",
            interleaved(variants(made, *dial), rounds(11)),
            unit="µs",
            scale=1e-3,
            goals={"injected": "≤ 3.5"},
        )
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Both placements."""
    with folder() as path, node() as made:
        program = probe(path)
        inside = ["nsenter", f"--net=/proc/{made.namespace.pid}/ns/net"]
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=0"], check=True)
        measure(made, program, "not pinned", [])
        for task in os.listdir(f"/proc/{made.holder.pid}/task"):
            os.sched_setaffinity(int(task), {0})
        measure(made, program, "one CPU", pin(0))


if __name__ == "__main__":
    main()
