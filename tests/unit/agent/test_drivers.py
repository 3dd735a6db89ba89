"""Which driver can be used, and why not."""

from __future__ import annotations

import pytest

from appswitch.agent.drivers import Facts, judge, probe

ROOT = (1 << 41) - 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts("6.1.0", ROOT, True), ""),
        (Facts("6.12.1-cloud", 1 << 39 | 1 << 12, True), ""),
        (Facts("6.0.9", ROOT, True), "needs Linux 6.1 or newer, this is 6.0.9"),
        (Facts("odd", ROOT, True), "needs Linux 6.1 or newer, this is odd"),
        (Facts("6.1.0", 1 << 39, True), "needs root (or CAP_BPF and CAP_NET_ADMIN)"),
        (
            Facts("6.1.0", ROOT, False),
            "needs a mounted cgroup v2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup)",
        ),
    ],
)
def test_the_kernel_driver(facts: Facts, reason: str) -> None:
    kernel = judge(facts)[0]
    assert (kernel.usable, kernel.reason, kernel.in_use) == (not reason, reason, False)


def test_all_reasons_at_once() -> None:
    assert judge(Facts("4.9", 0, False))[0].reason.count(";") == 2


def test_this_machine_has_an_answer() -> None:
    assert [driver.name for driver in probe("kernel")] == ["kernel", "user", "ptrace"]
