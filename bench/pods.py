"""socket + connect + close between two pods on a bridge, attached, against the same pods left alone.

The pod's own network: the client dials the virtual address of the other pod, or a vservice in front of it.
Client and server are pinned to two CPUs.  Goal: 1.20.
"""

from __future__ import annotations

from harness import AGAIN, Node, Pod, interleaved, node, pin, probe, report, rounds

COUNT = 4000
GOALS = {"attached, virtual address": "≤ 1.20", "attached, vservice": "≤ 1.20"}
ADDRESSES = ("10.0.2.31", "10.0.2.32", "10.0.2.33", "10.0.2.34")


def measure(made: Node, pods: list[Pod], program: str, cpus: tuple[int, int]) -> dict[str, list[float]]:
    """Two pods are attached, two are not."""
    server, client, bare_server, bare_client = pods
    for pod in (server, bare_server):
        pod.start(*pin(cpus[1]), program, "server", "0.0.0.0", "80")
    made.wait_service("1.1.1.1", 80)
    made.wait(lambda: not bare_client.run(program, "client", bare_server.ip, "80", "1").code, "it serves")

    def dial(pod: Pod, ip: str, port: str) -> float:
        return float(pod.run(*pin(cpus[0]), program, "client", ip, port, str(COUNT)).ok())

    return interleaved(
        {
            "native": lambda: dial(bare_client, bare_server.ip, "80"),
            AGAIN: lambda: dial(bare_client, bare_server.ip, "80"),
            "attached, virtual address": lambda: dial(client, "1.1.1.1", "80"),
            "attached, vservice": lambda: dial(client, "5.5.5.5", "8000"),
        },
        rounds(21),
    )


def main() -> None:
    """Both placements."""
    with node() as made:
        program = probe(made.base)
        made.ax(
            "create", "vservice", "--ip", "5.5.5.5", "--backends", "1.1.1.1", "--ports", "8000:80", "v"
        ).ok()
        for title, cpus in (("one CPU", (0, 0)), ("two CPUs", (0, 1))):
            pods = [Pod(made.sandbox, f"{cpus[1]}{i}", ip) for i, ip in enumerate(ADDRESSES)]
            for pod in pods:  # what one variant left must not slow the next
                pod.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets").ok()
            made.ax("attach", str(pods[0].init.pid), "--ip", "1.1.1.1").ok()
            made.ax("attach", str(pods[1].init.pid), "--ip", "2.2.2.2").ok()
            found = measure(made, pods, program, cpus)
            title = f"socket + connect + close between pods, pinned to {title}"
            report(title, found, unit="µs", scale=1e-3, goals=GOALS)
            for pod in pods:
                pod.close()
            made.wait(lambda: not made.get("apps"), "the attached apps end")


if __name__ == "__main__":
    main()
