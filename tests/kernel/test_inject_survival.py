"""Holders that are killed or stopped, apps that hang: nobody else notices."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from ipaddress import IPv4Address

import pytest
from kernel.holding import MANY, Node, done, node

from appswitch.interceptor import inject_flight as flight
from appswitch.interceptor import seccomp
from appswitch.interceptor.inject_loop import Loop
from appswitch.interceptor.inject_stock import HeldApp, Maker


@pytest.fixture
def held() -> Iterator[Node]:
    with node() as made:
        yield made


def test_holder_stopped_and_continued(held: Node) -> None:
    """SIGSTOP (a debugger, a freezer) in the middle of a call: no socket() answers with a wrong number."""
    app = held.app(1, MANY.format(count=20_000))
    while app.poll() is None:
        held.holder.send_signal(signal.SIGSTOP)
        time.sleep(0.002)
        held.holder.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    assert done(app) == "ok\n"


def test_hung_app_delays_nobody(held: Node) -> None:
    """One app stopped in the middle of its calls, one killed, one that never gets the CPU."""
    stopped = held.app(1, MANY.format(count=10**6))
    killed = held.app(2, MANY.format(count=10**6))
    time.sleep(0.2)
    stopped.send_signal(signal.SIGSTOP)
    killed.kill()
    assert done(held.app(3, MANY.format(count=500)), 5) == "ok\n"
    stopped.kill()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_starved_app_delays_nobody(held: Node) -> None:
    """An app that gets no CPU while the holder waits for it costs the others one tick, not its absence."""
    mine, theirs = sorted(os.sched_getaffinity(0))[:2]
    for task in os.listdir(f"/proc/{held.holder.pid}/task"):
        os.sched_setaffinity(int(task), {mine})
    starved = held.app(1, MANY.format(count=10**6), prefix=("taskset", "-c", str(theirs)))
    timed = held.app(
        2,
        """
import socket, sys, time
worst = 0
print(flush=True)
end = time.monotonic() + 2.5
while time.monotonic() < end:
    start = time.monotonic(); socket.socket().close(); worst = max(worst, time.monotonic() - start)
    time.sleep(0.0005)
print(worst)
""",
        prefix=("taskset", "-c", str(mine), "chrt", "-r", "1"),
    )
    hog = """
import time
for i in range(4):
    end = time.monotonic() + 0.3
    while time.monotonic() < end: pass
    time.sleep(0.1)
"""
    assert timed.stdout is not None and timed.stdout.readline() == "\n"
    subprocess.run(
        ["taskset", "-c", str(theirs), "chrt", "-f", "1", sys.executable, "-S", "-c", hog],
        check=True,
        timeout=20,
    )
    assert float(done(timed)) < 0.15, held.events("holder-held-up")
    starved.kill()
    starved.wait()
    assert done(held.app(3, MANY.format(count=100)), 5) == "ok\n"


def test_stolen_call_delays_nobody(held: Node) -> None:
    """An app may keep its own copy of the notify descriptor and take the call that epoll told us of: RECV
    waits then, and the watch must see it."""
    process, notify, channel = held.filtered("true")
    loop = Loop(Maker(held.sockets), lambda: None, lambda event, **fields: None)
    app = HeldApp(1, 0, IPv4Address("1.1.1.1"), notify)
    seat = loop.seat
    thread = threading.Thread(target=loop._serve, args=(seat, app), daemon=True)
    thread.start()
    deadline = time.monotonic() + 5
    while not loop.replace(seat, seat.call):
        assert time.monotonic() < deadline, "nobody sees that the thread waits"
        time.sleep(0.01)
    assert loop.seat is not seat and seat.left_with is app
    channel.close()  # the program ends, and with it the wait
    process.wait(5)
    thread.join(5)
    assert not thread.is_alive()
    os.close(notify)


def test_successor_answers_the_call_in_flight(held: Node) -> None:
    """The dead holder had received a call; once it had not yet given a socket, once it had."""
    dead = flight.Flight.create()
    apps = [held.filtered(sys.executable, "-S", "-c", MANY.format(count=5)) for _ in range(2)]
    with held.client() as client:
        for index, (_, notify, channel) in enumerate(apps, 1):
            channel.send(b"g")
            with dead.slot(index) as slot:
                flight.clear(slot, index)
                ioctl(notify, seccomp.NOTIF_RECV, slot, True)
                if index == 2:
                    call = seccomp.NOTIF_CALL.unpack_from(slot)[0]
                    with socket.socket() as gift:
                        add = seccomp.ADDFD.pack(call, 0, gift.fileno(), 0, 0)
                        number = ioctl(notify, seccomp.NOTIF_ADDFD, bytearray(add), True)
                    flight.note_given(slot, number)
            client.add(index, 0, IPv4Address("1.1.1.1"), notify)
        assert client.adopt(dead.fd) == 2
        assert [done(process) for process, _, _ in apps] == ["ok\n", "ok\n"]
        assert client.adopt(dead.fd) == 0
    for _, notify, channel in apps:
        os.close(notify)
        channel.close()
    dead.close()


def test_kill_9_again_and_again(held: Node) -> None:
    """Programs in full flight see nothing of the holder's deaths."""
    apps = [held.app(number, MANY.format(count=15_000)) for number in (1, 2)]
    adopted = 0
    for _ in range(5):
        with held.client() as client:
            holding = client.holding()
        time.sleep(0.05)
        adopted += held.replace(holding)
        holding.close()
    assert [done(app, 40) for app in apps] == ["ok\n", "ok\n"]
    print(f"{adopted} calls adopted")
