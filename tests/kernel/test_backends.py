"""Backends that fail are avoided at once, and what became of every connection is counted."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from e2e.sandbox import NODE_IP, wait_until
from kernel.driver import Driver

from appswitch.interceptor.counters import Count, Edge, EdgeKind
from appswitch.interceptor.decision import decide
from appswitch.model import Backend, Destination, LbPolicy, PortMap, VService

VIP = IPv4Address("5.5.5.5")
NODE = int(IPv4Address(NODE_IP))

HOST = """
import socket, sys
listeners = []
for port in {ports}:
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(({address!r}, port)); s.listen(64); listeners.append(s)
print("up", flush=True)
import select
while True:
    for s in select.select(listeners, [], [])[0]:
        c, _ = s.accept(); c.sendall(b"%d" % s.getsockname()[1]); c.close()
"""
DIAL = """
import socket, json
def dial(ip, port, timeout=None):
    with socket.socket() as s:
        if timeout:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout)
        try:
            s.connect((ip, port))
        except OSError as error:
            return -error.errno
        return int(s.recv(9) or b"0")
"""


def vservice(
    driver: Driver, *backends: tuple[str, int], policy: LbPolicy = LbPolicy.RANDOM, name: str = "v"
) -> None:
    made = tuple(Backend(IPv4Address(ip), port) for ip, port in backends)
    driver.registry.create_vservice(VService(name, (VIP,), (PortMap(80, 80),), made, policy))
    driver.write()


@contextmanager
def host(driver: Driver, *ports: int) -> Iterator[None]:
    """A program of the node's own that says which port was reached."""
    code = HOST.format(ports=list(ports), address=NODE_IP)
    process = driver.sandbox.start(["python3", "-u", "-c", code], cgroup="host")
    try:
        wait_until(lambda: "up" in process.output(), "the host's program listens")
        yield
    finally:
        process.stop()


def dial(driver: Driver, app: str, times: int, timeout: int = 0) -> list[int]:
    code = DIAL + f"print(json.dumps([dial('5.5.5.5', 80, {timeout}) for _ in range({times})]))"
    return list(json.loads(driver.python(app, code).ok()))


@pytest.mark.parametrize("policy", list(LbPolicy))
def test_a_refusal_is_known_to_the_next_connect(driver: Driver, policy: LbPolicy) -> None:
    client = driver.app("2.2.2.2")
    vservice(driver, (NODE_IP, 901), (NODE_IP, 902), (NODE_IP, 903), policy=policy)
    with host(driver, 902, 903):
        answers = dial(driver, client, 60)
        assert answers.count(-ECONNREFUSED) <= 1, answers  # then it is avoided
        failures = driver.kernel.counters.failures()
        if failures:  # else the dead one was not drawn in 60: one in 10^10
            assert failures[NODE, 901].error == ECONNREFUSED
            assert failures[NODE, 901].consecutive == 1
        assert set(answers) - {-ECONNREFUSED} == {902, 903}
        ages = {key: failure.age for key, failure in failures.items()}
        verdict = decide(driver.registry.snapshot, driver.registry.app(1), Destination(VIP, 80), ages)
        if ages[NODE, 901] < 1:
            assert {pick.port for pick in verdict.picks} == {902, 903}


def test_where_all_fail_they_are_dialled_all_the_same(driver: Driver) -> None:
    client = driver.app("2.2.2.2")
    vservice(driver, (NODE_IP, 901), (NODE_IP, 902))
    assert dial(driver, client, 5) == [-ECONNREFUSED] * 5
    assert sum(f.consecutive for f in driver.kernel.counters.failures().values()) == 5
    with host(driver, 901, 902):
        # the first one reached is well again at once, the other after its second
        assert set(dial(driver, client, 40)) <= {901, 902}
        wait_until(lambda: set(dial(driver, client, 10)) == {901, 902}, "both are dialled again")
    assert not driver.kernel.counters.failures()


def test_an_app_is_there_while_an_address_fails(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    vservice(driver, (NODE_IP, 901), ("1.1.1.1", 80))
    driver.serve(server, HOST.format(ports=[80], address="0.0.0.0"))
    answers = dial(driver, client, 40)
    assert Counter(answers)[80] >= 39


def test_avoided_for_a_second_and_no_longer(driver: Driver) -> None:
    client = driver.app("2.2.2.2")
    vservice(driver, (NODE_IP, 901), (NODE_IP, 902), policy=LbPolicy.ROUND_ROBIN)
    with host(driver, 902):
        code = DIAL + (
            "import time\n"
            "seen = 0\n"
            "while seen < 3:\n"  # round robin: at once, and each time the second is over
            "    before = time.monotonic()\n"
            f"    if dial('5.5.5.5', 80) == -{ECONNREFUSED}:\n"
            "        print(before, time.monotonic()); seen += 1\n"
            "    time.sleep(0.01)\n"
        )
        times = [tuple(map(float, line.split())) for line in driver.python(client, code).ok().splitlines()]
        # from the end of one dial to the end of the next: the mark was made within the first
        assert all(after[1] - before[0] >= 0.99 for before, after in pairwise(times)), times


def count_of(driver: Driver, kind: EdgeKind) -> tuple[Edge, Count]:
    [found] = [(edge, count) for edge, count in driver.kernel.counters.read().items() if edge.kind is kind]
    return found


def test_why_it_failed(driver: Driver) -> None:
    client = driver.app("2.2.2.2")
    vservice(driver, (NODE_IP, 901))
    assert dial(driver, client, 1) == [-ECONNREFUSED]
    edge, count = count_of(driver, EdgeKind.ADDRESS)
    assert edge == Edge(1, EdgeKind.ADDRESS, VIP, 80, 0, IPv4Address(NODE_IP), 901)
    assert (count.opened, count.ended, count.failed, count.refused) == (1, 1, 1, 1)
    assert 0 < count.last_failure <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    driver.registry.delete_vservice("v")

    # a listener with a full backlog is silent
    full = (
        "import socket, time\n"
        f"s = socket.socket(); s.bind(({NODE_IP!r}, 904)); s.listen(0)\n"
        f"c = [socket.socket() for _ in range(3)]\n"
        "for each in c: each.setblocking(False); each.connect_ex(s.getsockname())\n"
        "print('up', flush=True); time.sleep(60)"
    )
    silent = driver.sandbox.start(["python3", "-u", "-c", full], cgroup="host")
    wait_until(lambda: "up" in silent.output(), "the backlog is full")
    vservice(driver, (NODE_IP, 904), name="silent")
    assert dial(driver, client, 1, timeout=300) == [-ETIMEDOUT]
    silent.stop()
    by_port = {edge.backend_port: count for edge, count in driver.kernel.counters.read().items()}
    assert (by_port[904].timed_out, by_port[904].failed, by_port[904].active) == (1, 1, 0)
    assert driver.kernel.counters.failures()[NODE, 904].error == ETIMEDOUT

    # an address of the node's network that nobody has
    driver.registry.delete_vservice("silent")
    vservice(driver, ("10.0.2.77", 905), name="nobody")
    assert dial(driver, client, 1) == [-EHOSTUNREACH]
    by_port = {edge.backend_port: count for edge, count in driver.kernel.counters.read().items()}
    assert (by_port[905].unreachable, by_port[905].failed) == (1, 1)


def test_giving_up_is_no_failure_of_the_backend(driver: Driver) -> None:
    client = driver.app("2.2.2.2")
    vservice(driver, ("10.0.2.77", 905))
    code = (
        "import socket\ns = socket.socket(); s.setblocking(False)\ns.connect_ex(('5.5.5.5', 80)); s.close()"
    )
    driver.python(client, code).ok()
    _, count = count_of(driver, EdgeKind.ADDRESS)
    assert (count.opened, count.failed, count.unreachable, count.timed_out) == (1, 1, 0, 0)
    assert not driver.kernel.counters.failures()


TALK = """
import socket, subprocess, sys, time
s = socket.create_connection(("1.1.1.1", 80))
s.sendall(b"x" * {sent})
s.shutdown(socket.SHUT_WR)
got = 0
while got < {received}:
    got += len(s.recv(1 << 16))
time.sleep({lasts})
shown = subprocess.run(["ss", "-tinO", "dport", "=", ":{real}"], capture_output=True, text=True).stdout
print(shown, flush=True)
assert s.recv(1) == b""
"""
ANSWER = """
import socket
s = socket.socket(); s.bind(("", 80)); s.listen(64); print("up")
while True:
    c, _ = s.accept(); got = 0
    while chunk := c.recv(1 << 16):
        got += len(chunk)
    c.sendall(b"y" * {received})
    {end}
    c.close()
"""


def test_bytes_and_duration_are_what_ss_shows(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    driver.serve(server, ANSWER.format(received=70_000, end="import time; time.sleep(0.5)"))
    [service] = driver.kernel.services()
    code = TALK.format(sent=300_000, received=70_000, lasts=0.3, real=service.real_port)
    shown = driver.python(client, code).ok()
    edge, count = count_of(driver, EdgeKind.APP)
    assert edge == Edge(2, EdgeKind.APP, IPv4Address("1.1.1.1"), 80, 1, IPv4Address(0), service.real_port)
    figures = dict(word.split(":", 1) for word in shown.split() if word.startswith("bytes_"))
    # the client's FIN was acknowledged when ss was asked, the server's came after
    assert count.sent == int(figures["bytes_acked"]) == 300_002
    assert count.received - 1 == int(figures["bytes_received"]) == 70_000
    assert (count.opened, count.ended, count.failed, count.reset, count.last_failure) == (1, 1, 0, 0, 0)
    assert 0.4e9 < count.nanoseconds < 5e9


def test_active_and_reset(driver: Driver) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    answer = "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))"
    driver.serve(server, ANSWER.format(received=1, end=answer))
    code = (
        "import socket, sys\n"
        "s = [socket.create_connection(('1.1.1.1', 80)) for _ in range(3)]\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "for each in s:\n"
        "    each.shutdown(socket.SHUT_WR)\n"
        "    try:\n"
        "        while each.recv(9): pass\n"
        "    except ConnectionResetError: print('reset')\n"
    )
    process = driver.sandbox.start(["python3", "-u", "-c", code], cgroup=client, stdin=subprocess.PIPE)
    wait_until(lambda: "up" in process.output(), "three connections")
    _, count = count_of(driver, EdgeKind.APP)
    assert (count.opened, count.active, count.ended) == (3, 3, 0)
    assert process.popen.stdin is not None
    process.popen.stdin.close()
    assert process.wait() == 0, process.output()
    _, count = count_of(driver, EdgeKind.APP)
    assert (count.opened, count.active, count.failed, count.reset) == (3, 0, 0, 3)
    assert process.output().count("reset") == 3
    assert not driver.kernel.counters.failures()  # a reset is between the two: the backend was there


@pytest.mark.parametrize("way", [[], ["-R"]], ids=["sent", "received"])
def test_iperf3_agrees(driver: Driver, way: list[str]) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    process = driver.sandbox.start(["iperf3", "-s", "-1"], cgroup=server)
    wait_until(driver.kernel.services, "iperf3 listens")
    # paced, for what is on its way when iperf3 ends is acknowledged by the kernel but not read by iperf3
    run = ["iperf3", "-c", "1.1.1.1", "-n", "4M", "-b", "50M", "-P", "2", "--json", *way]
    told = json.loads(driver.sandbox.run(run, cgroup=client).ok())["end"]
    process.wait()
    _, count = count_of(driver, EdgeKind.APP)
    assert count.opened == count.ended == 3  # two for data, one for control
    mine = count.received if way else count.sent
    read, written = (told[name]["bytes"] for name in ("sum_received", "sum_sent"))
    assert read <= mine < 1.01 * written + 20_000  # with what the control connection carries
    assert read > 0.9 * written


def test_outside_and_loopback_are_sums(driver: Driver) -> None:
    app = driver.app("1.1.1.1")
    with host(driver, 901, 902):
        code = DIAL + (
            f"print(dial({NODE_IP!r}, 901), dial({NODE_IP!r}, 902))\n"
            "for _ in range(3):\n"
            "    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
            "    socket.create_connection(s.getsockname()).close(); s.close()\n"
        )
        assert driver.python(app, code).ok() == "901 902\n"
    counts = {edge: count.opened for edge, count in driver.kernel.counters.read().items()}
    assert counts == {Edge(1, EdgeKind.OUTSIDE): 2, Edge(1, EdgeKind.LOOPBACK): 3}


def test_no_app_crowds_out_another(driver: Driver) -> None:
    """An app with its share of the table in use: what it dials beyond that is one sum."""
    client = driver.app("2.2.2.2")
    other = driver.app("2.2.2.3")
    maps = driver.kernel._maps
    maps["shares"].update((1).to_bytes(4, "little"), (4096).to_bytes(8, "little"))
    vservice(driver, (NODE_IP, 901), (NODE_IP, 902))
    with host(driver, 901, 902):
        dial(driver, client, 20)
        dial(driver, other, 20)
    counts = driver.kernel.counters.read()
    assert counts[Edge(1, EdgeKind.OTHER)].opened == counts[Edge(1, EdgeKind.OTHER)].ended == 20
    assert sum(count.opened for edge, count in counts.items() if edge.app == 2) == 20
    assert len([edge for edge in counts if edge.app == 1]) == 1

    driver.kernel.counters.sweep({1, 2}, lambda edge: True)  # it has room again
    dial(driver, client, 5)
    assert sum(c.opened for p, c in driver.kernel.counters.read().items() if p.kind is EdgeKind.ADDRESS) == 25


def test_sweep(driver: Driver) -> None:
    client = driver.app("2.2.2.2")
    maps = driver.kernel._maps
    vservice(driver, (NODE_IP, 901), (NODE_IP, 902))
    dial(driver, client, 20)
    before = driver.kernel.counters.read()
    assert len(before) == 2
    driver.kernel.counters.sweep({1}, lambda edge: True)
    assert driver.kernel.counters.read() == before  # few entries: even of backends that are gone
    maps["shares"].update((1).to_bytes(4, "little"), (2000).to_bytes(8, "little"))
    driver.kernel.counters.sweep({1}, lambda edge: edge.backend_port == 901)
    assert [edge.backend_port for edge in driver.kernel.counters.read()] == [902]
    driver.kernel.counters.sweep({5}, lambda edge: False)
    assert not driver.kernel.counters.read()
    assert not list(maps["shares"].keys()) and not list(maps["others"].keys())
