"""Runs all benchmarks: `bench/run.py [NAME…]`; the output is Markdown, as it stands in RESULTS.md."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = (
    "connect",
    "http_requests",
    "throughput",
    "launch",
    "scale",
    "untouched",
    "udp",
    "busy",
    "envoy",
    "pods",
)


def machine() -> str:
    """CPU, kernel, Python and date, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    uname, python = os.uname(), sys.version.split()[0]
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{today}: {os.cpu_count()} x {cpu}, Linux {uname.release} {uname.machine}, Python {python}"


def main() -> int:
    """Each in a process of its own; the exit status tells whether all ran."""
    if os.geteuid() != 0:
        print("bench: needs root: network namespaces, cgroups and eBPF", file=sys.stderr)
        return 71
    print(f"Measured on {machine()}", flush=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "tests")])}
    failed = []
    for name in sys.argv[1:] or ALL:
        print(f"\n## {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False, env=env).returncode:
            failed.append(name)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
