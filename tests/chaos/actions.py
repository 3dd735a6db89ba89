"""What is done to the node; each action ends when its cause is over, not when the node has recovered."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from e2e.node import AX
from e2e.servers import PYTHON

from chaos.world import OWN, World

HOG_PORTS = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
try:
    for port in range(1024, 9000):
        held.append(socket.create_server(("", port)))
except OSError as error:
    print(len(held), error.errno)
"""
HOG_FILES = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True: held.append(socket.socket())
except OSError as error:
    print(len(held), error.errno)
"""


def _signal(pid: int | None, number: int) -> None:
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


@contextmanager
def _stopped(*pids: int | None) -> Iterator[None]:
    """SIGSTOP for the block, as a debugger, a freezer or a suspended machine does."""
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


def kill_daemon(world: World, chance: random.Random) -> None:
    world.node.kill(holder=False)


def kill_holder(world: World, chance: random.Random) -> None:
    world.node.kill(daemon=False)


def kill_both(world: World, chance: random.Random) -> None:
    """At the same moment."""
    world.node.kill()


def kill_again_and_again(world: World, chance: random.Random) -> None:
    """Also while they start."""
    for _ in range(4):
        world.node.kill(holder=chance.random() < 0.7)
        time.sleep(chance.uniform(0, 0.4))


def kill_all(world: World, chance: random.Random) -> None:
    """The Istio agent, too."""
    _signal(world.agent_pid(), signal.SIGKILL)
    world.node.kill()


def restart(world: World, chance: random.Random) -> None:
    """As an upgrade does."""
    _signal(world.node.daemon_pid(), signal.SIGTERM)


def hang_up(world: World, chance: random.Random) -> None:
    _signal(world.node.daemon_pid(), signal.SIGHUP)


def stop_daemon(world: World, chance: random.Random) -> None:
    with _stopped(world.node.daemon_pid()):
        time.sleep(chance.uniform(0.2, 2.5))


def stop_holder(world: World, chance: random.Random) -> None:
    with _stopped(world.node.holder_pid()):
        time.sleep(chance.uniform(0.1, 1.5))


def suspend(world: World, chance: random.Random) -> None:
    with _stopped(world.node.daemon_pid(), world.node.holder_pid(), world.agent_pid()):
        time.sleep(chance.uniform(0.2, 1.5))


def kill_agent(world: World, chance: random.Random) -> None:
    _signal(world.agent_pid(), signal.SIGKILL)


def exhaust_ports(world: World, chance: random.Random) -> None:
    """One app takes every port of the pool."""
    world.node.run(*chance.choice(([], OWN)), PYTHON, "-c", HOG_PORTS)


def exhaust_files(world: World, chance: random.Random) -> None:
    """One app takes every descriptor that it may have."""
    world.node.run(*chance.choice(([], OWN)), PYTHON, "-c", HOG_FILES)


def exhaust_holder(world: World, chance: random.Random) -> None:
    """The holder may open nothing more: the sockets that wait in it make room."""
    pid = world.node.holder_pid()
    if not pid:
        return
    try:
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # the soft limit alone: without CAP_SYS_RESOURCE the other would stay lowered
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        time.sleep(chance.uniform(0.1, 0.5))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    except (OSError, ValueError):
        return  # it is not there any more


def fill_disk(world: World, chance: random.Random) -> None:
    """Not a byte is left for the run directory; sometimes the daemon must start so."""
    filler = world.node.run_dir / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        pass
    try:
        if chance.random() < 0.5:
            world.node.kill(holder=chance.random() < 0.5)
        world.node.run(*chance.choice(([], OWN)), "true")
        time.sleep(chance.uniform(0.2, 2.0))
    finally:
        filler.unlink()


def launch_and_die(world: World, chance: random.Random) -> None:
    """Launches that are killed or stopped at any moment, some with another app inside."""
    node = world.node
    for _ in range(6):
        inner = [AX, "run", "--ip", "3.3.3.4"] if chance.random() < 0.5 else []
        mode = chance.choice(([], OWN))
        victim = node.start("--ip", "3.3.3.3", *mode, *inner, PYTHON, "-c", "import socket; socket.socket()")
        time.sleep(chance.uniform(0, 0.08))
        if chance.random() < 0.5:
            with _stopped(victim.pid):
                time.sleep(0.05)
        victim.stop(chance.choice((signal.SIGKILL, signal.SIGTERM)))


def children(world: World, chance: random.Random) -> None:
    """Short-lived programs, each with a socket of its own, in one app."""
    code = f"{PYTHON} -S -c 'import socket; socket.socket()' || exit 9;"
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do {code} done"
    assert world.node.run(*chance.choice(([], OWN)), "sh", "-c", loop, timeout=120).code in (0, 69)


ACTIONS: dict[Callable[[World, random.Random], None], int] = {
    kill_daemon: 4,
    kill_holder: 4,
    kill_both: 6,
    kill_again_and_again: 3,
    kill_all: 2,
    restart: 3,
    hang_up: 1,
    stop_daemon: 2,
    stop_holder: 3,
    suspend: 2,
    kill_agent: 1,
    exhaust_ports: 1,
    exhaust_files: 1,
    exhaust_holder: 2,
    fill_disk: 2,
    launch_and_die: 3,
    children: 2,
}
"""With their weights."""
