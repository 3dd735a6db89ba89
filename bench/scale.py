"""Many apps, many services: memory, and whether a connect becomes dearer.

1,000 apps alive: memory per app, connect cost against one.  10,000 vservices of 10 backends: connect cost
against ten, time to write them, time to change one.  Goals: 1.1.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from ipaddress import IPv4Address
from pathlib import Path

from e2e.node import AX, unix_http
from harness import OWN, Node, interleaved, node, pin, probe, report, rounds, wait_until

from appswitch.agent.planner import Planner
from appswitch.agent.registry import Registry
from appswitch.interceptor.kernel import Kernel
from appswitch.model import Backend, Mesh, PortMap, VService

COUNT = 4000
APPS = int(os.environ.get("BENCH_APPS", 1000))
VSERVICES = int(os.environ.get("BENCH_VSERVICES", 10_000))


def resident(pid: int) -> int:
    """Bytes of a process that are its own (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def available() -> int:
    """Bytes that the machine could still give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def connect_cost(made: Node, program: str, address: str) -> float:
    """Nanoseconds of socket + connect + close to ADDRESS:80 in the node's own network."""
    return float(made.run(OWN, *pin(0), program, "client", address, "80", str(COUNT)).ok())


def many_apps(few: Node, many: Node, program: str, flags: list[str], title: str) -> None:
    """Starts APPS sleeping apps on one node, measures both, ends them."""
    assert many.daemon is not None
    before, machine = resident(many.daemon.pid), available()
    begin = time.monotonic()
    command = f"{AX} run --ip 9.$((i/250)).$((i%250)).1 {' '.join(flags)} sleep 3600"
    script = f"for i in $(seq {APPS}); do {command} & done; wait"
    many.host_start("sh", "-c", script)
    wait_until(lambda: len(many.get("apps")) >= APPS, f"{APPS} apps", 300)
    took = time.monotonic() - begin
    sleepers = sum(resident(pid) for pid in many.sandbox.pids("host"))
    daemon = (resident(many.daemon.pid) - before) / APPS / 1024
    kernel = (machine - available() - sleepers) / APPS / 1024
    variants = {
        "one app": lambda: connect_cost(few, program, "1.1.1.1"),
        f"{APPS} apps": lambda: connect_cost(many, program, "1.1.1.1"),
    }
    found = interleaved(variants, rounds(11))
    report(f"Connect with {APPS} apps alive, {title}", found, unit="µs", scale=1e-3, baseline="one app")
    print(f"- all started in {took:.1f} s")
    print(f"- memory per app: daemon {daemon:.1f} KiB; kernel's and daemon's together {kernel:.0f} KiB")


def post(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> None:
    """One request to the daemon; AssertionError unless it succeeds."""
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    text = response.read()
    assert response.status < 300, (response.status, text)


def vservice(number: int, first: str) -> dict[str, object]:
    """A vservice of ten backends; `first` is the one that lives."""
    backends, ports = [first, *_backends(number)[1:]], [{"port": 80, "target": 80}]
    return {"name": f"vs{number}", "ip": _address(number), "backends": backends, "ports": ports}


def _address(number: int) -> str:
    return f"12.{number >> 8 & 255}.{number & 255}.1"


def _backends(number: int) -> list[str]:
    return [f"11.{number >> 8 & 255}.{number & 255}.{index}" for index in range(10)]


def many_vservices(few: Node, many: Node, program: str) -> None:
    """Ten on one node, VSERVICES on the other."""
    took = {}
    for made, number in ((few, 10), (many, VSERVICES)):
        connection = unix_http(made.run_dir / "api.sock")
        begin = time.monotonic()
        for index in range(number):
            post(connection, "POST", "/v1/vservices", vservice(index, "1.1.1.1"))
        took[number] = time.monotonic() - begin
        only = {**vservice(1, "1.1.1.1"), "name": "measured", "ip": "7.7.7.7", "backends": ["1.1.1.1"]}
        post(connection, "POST", "/v1/vservices", only)
        changes = []
        for _ in range(11):
            begin = time.monotonic()
            post(connection, "DELETE", "/v1/vservices/vs3")
            post(connection, "POST", "/v1/vservices", vservice(3, "1.1.1.1"))
            changes.append((time.monotonic() - begin) / 2)
        took[-number] = sorted(changes)[5]
        connection.close()
    variants = {
        "10 vservices": lambda: connect_cost(few, program, "7.7.7.7"),
        f"{VSERVICES} vservices": lambda: connect_cost(many, program, "7.7.7.7"),
    }
    found = interleaved(variants, rounds(11))
    report("Connect to a vservice", found, unit="µs", scale=1e-3, baseline="10 vservices")
    print(f"- created one by one over REST: {took[VSERVICES]:.1f} s for {VSERVICES} x 10 backends")
    ten, all_of_them = took[-10] * 1e3, took[-VSERVICES] * 1e3
    print(f"- one change (median): {ten:.1f} ms among 10, {all_of_them:.1f} ms among {VSERVICES}")


def tables_alone() -> None:
    """Compiling and writing VSERVICES at once, as after a push of Istio's; then one change."""
    backends = [[Backend(IPv4Address(text)) for text in _backends(number)] for number in range(VSERVICES)]
    vservices = [
        VService(f"vs{number}", (IPv4Address(_address(number)),), (PortMap(80, 80),), tuple(found))
        for number, found in enumerate(backends)
    ]
    registry = Registry("bench", IPv4Address("10.0.2.15"))
    planner = Planner(registry)
    registry.replace_istio(Mesh(tuple(vservices)))
    kernel = Kernel.open(Path(f"/sys/fs/bpf/appswitch/bench-{os.getpid()}"), clean=True)
    try:
        begin = time.monotonic()
        commands = planner.plan(begin)
        compiled = time.monotonic()
        kernel.apply(commands)
        written = time.monotonic()
        registry.replace_istio(Mesh(tuple(vservices[1:])))
        changed = time.monotonic()
        kernel.apply(planner.plan(changed))
        done = time.monotonic()
    finally:
        kernel.close()
        kernel.remove()
    print(f"\n### Tables alone, {VSERVICES} vservices of 10 backends\n")
    print(f"- compiled in {compiled - begin:.2f} s, written in {written - compiled:.2f} s")
    print(f"- one of them changed: compiled and written in {(done - changed) * 1e3:.2f} ms")


def main() -> None:
    """Two nodes: one stays small."""
    tables_alone()
    with node() as few, node() as many:
        program = probe(few.base)
        for made in (few, many):
            made.start("--ip", "1.1.1.1", OWN, *pin(0), program, "server", "0.0.0.0", "80")
            made.wait_service("1.1.1.1", 80)
        many_vservices(few, many, program)
    for flags, title in (([OWN], "own network"), ([], "empty namespaces")):
        with node() as few, node() as many:
            program = probe(few.base)
            for made in (few, many):
                made.start("--ip", "1.1.1.1", OWN, *pin(0), program, "server", "0.0.0.0", "80")
                made.wait_service("1.1.1.1", 80)
            many_apps(few, many, program, flags, title)


if __name__ == "__main__":
    main()
