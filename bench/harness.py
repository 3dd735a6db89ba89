"""What all benchmarks share: a node, the compiled probe, interleaved rounds, a table of medians.

Every figure is a ratio against native *in the same run*: the variants take turns, round by round, so that
what else the machine does hits all of them alike.  `BENCH_ROUNDS` changes the number of rounds.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from e2e.node import Node  # noqa: E402
from e2e.pods import Pod  # noqa: E402
from e2e.sandbox import Process, Sandbox, wait_until  # noqa: E402
from e2e.servers import nginx_argv  # noqa: E402

__all__ = ["ROOT", "Node", "Pod", "Process", "Sandbox", "nginx_argv", "wait_until"]

T = TypeVar("T")

OWN = "--new-netns=false"
"""Flag of an app that stays in the node's own network."""

AGAIN = "native, measured twice"
"""A control: how far from 1 the noise of this machine brings a ratio."""


def rounds(default: int) -> int:
    """How many times each variant is measured."""
    return int(os.environ.get("BENCH_ROUNDS", default))


def pin(cpu: int) -> list[str]:
    """Prefix that keeps a command on one CPU (on the only one, where there is one).

    `BENCH_REALTIME=1` also gives it real-time priority, for a first look on a busy machine: sensible only
    where client and server are on two CPUs.
    """
    real_time = ["chrt", "-f", "10"] if os.environ.get("BENCH_REALTIME") else []
    return [*real_time, "taskset", "-c", str(cpu % (os.cpu_count() or 1))]


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path (Unix sockets), gone at the end."""
    path = Path(tempfile.mkdtemp(prefix="axb-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def node(*daemon_args: str) -> Iterator[Node]:
    """A node with a daemon; its namespace keeps no TIME_WAIT, so that 100,000 dials find free ports."""
    with folder() as path, Node(path, *daemon_args) as made:
        quiet(made.sandbox)
        yield made


def quiet(sandbox: Sandbox) -> None:
    """No TIME_WAIT in this namespace: what one variant left must not slow the next."""
    sandbox.run(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets"], cgroup="host").ok()


def probe(target: Path) -> str:
    """Compiles programs/probe.c (by the compiler that builds the product) into `target`."""
    source = ROOT / "bench/programs/probe.c"
    binary = target / "probe"
    command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-target", "x86_64-linux-musl", "-static"]
    if os.uname().machine != "x86_64":
        command[command.index("x86_64-linux-musl")] = f"{os.uname().machine}-linux-musl"
    env = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(target / "zig")}
    subprocess.run([*command, str(source), "-o", str(binary)], check=True, timeout=600, env=env)
    return str(binary)


def interleaved(variants: Mapping[str, Callable[[], T]], times: int) -> dict[str, list[T]]:
    """Measures every variant once a round, the order turning from round to round."""
    names = list(variants)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(times):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(variants[name]())
    return found


def report(
    title: str,
    measured: Mapping[str, list[float]],
    *,
    unit: str,
    scale: float = 1.0,
    baseline: str = "native",
    baselines: Mapping[str, str] | None = None,
    goals: Mapping[str, str] | None = None,
) -> None:
    """A Markdown table: medians, the median and quartiles of the rounds' own ratios, the goal.

    `baselines`: of the variants that are measured against another one than `baseline`.
    """
    print(f"\n### {title}\n")
    print(f"| variant | median, {unit} | ratio to {baseline} | rounds' ratios, 25–75 % | goal |")
    print("|---|---|---|---|---|")
    for name, values in measured.items():
        base = measured[(baselines or {}).get(name, baseline)]
        # of the rounds' own ratios: the machine's speed drifts over a run, less so within a round
        each = sorted(value / other for value, other in zip(values, base, strict=True))
        ratio = statistics.median(each)
        low, high = each[len(each) // 4], each[(3 * len(each)) // 4]
        goal = (goals or {}).get(name, "")
        median = statistics.median(values) * scale
        print(f"| {name} | {median:,.1f} | {ratio:.3f} | {low:.3f}–{high:.3f} | {goal} |")
    print(flush=True)
