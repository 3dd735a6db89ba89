"""Connect-wait in the kernel: what a program sees of a connect() to what is known and not up yet."""

from __future__ import annotations

import signal
import time

import pytest
from e2e.sandbox import Process, wait_until
from kernel.driver import Driver

LATE = """
import signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
print("here")
signal.sigwait({{signal.SIGUSR1}})
s = socket.socket({family})
s.bind(("{address}", {port}))
s.listen({backlog})
while True:
    c, a = s.accept()
    c.sendall(f"{{a[0]}} at {{c.getsockname()[0]}}:{{c.getsockname()[1]}}".encode())
    c.close()
"""
DIAL = """
import errno, signal, socket, struct, time
start = time.monotonic()
s = socket.socket({family})
{before}
print("dials")
try:
    s.connect(("{address}", {port}))
    {after}
    print(s.getpeername()[:2], s.getsockname()[0], s.recv(99).decode())
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
print(f"{{time.monotonic() - start:.2f}}")
"""


def late(driver: Driver, app: str, *, port: int = 80, address: str = "0.0.0.0", backlog: int = 64) -> Process:
    """A server that listens as soon as it gets SIGUSR1."""
    family = "socket.AF_INET6" if ":" in address else ""
    code = LATE.format(port=port, address=address, family=family, backlog=backlog)
    return driver.serve(app, code)


def dial(
    driver: Driver, app: str, address: str = "1.1.1.1", port: int = 80, before: str = "", after: str = ""
) -> Process:
    """A blocking connect() under way."""
    family = "socket.AF_INET6" if ":" in address else ""
    code = DIAL.format(address=address, port=port, family=family, before=before, after=after or "pass")
    return driver.serve(app, code)


def outcome(process: Process) -> tuple[str, float]:
    """What it came to, and after how many seconds."""
    process.wait(30)
    _, what, seconds = process.output().splitlines()
    return what, float(seconds)


def waiting(driver: Driver, count: int = 1) -> None:
    """Until so many connect() wait, or none."""
    wait_until(lambda: driver.kernel.waiting.count() == count, f"{count} wait")


def hold(*clients: Process) -> None:
    """Time enough for some SYNs to be refused; nobody has noticed."""
    time.sleep(0.6)
    assert not [client.output() for client in clients if client.popen.poll() is not None]


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "1.1.1.1"])
@pytest.mark.parametrize("asked", ["1.1.1.1", "::ffff:1.1.1.1"])
def test_it_goes_on_when_somebody_listens(driver: Driver, bound: str, asked: str) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2", wait=10)
    serving = late(driver, server, address=bound)
    dialling = dial(driver, client, asked)
    waiting(driver)
    hold(dialling)
    serving.popen.send_signal(signal.SIGUSR1)
    what, seconds = outcome(dialling)
    own, mapped = asked.replace("1.1.1.1", "2.2.2.2"), "::ffff:" if ":" in bound else ""
    assert what == f"('{asked}', 80) {own} {mapped}2.2.2.2 at {mapped}1.1.1.1:80"
    assert seconds < 3
    waiting(driver, 0)


def test_refused_at_the_deadline(driver: Driver) -> None:
    driver.app("1.1.1.1")
    what, seconds = outcome(dial(driver, driver.app("2.2.2.2", wait=1.5)))
    assert what == "ECONNREFUSED"
    assert 1.4 < seconds < 2.7
    assert not driver.kernel.waiting.count()
