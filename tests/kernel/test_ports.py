"""Ports are given back, and none is lost: bind, listen, connect and close in a loop (`--cycles N`, 10⁵ once)."""

# ruff: noqa: E501  (programs of one line a step)

from __future__ import annotations

import pytest
from e2e.sandbox import wait_until
from kernel.driver import Driver

LOOP = """
import socket, sys
cycles = {cycles}
def tcp(): s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); return s
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(cycles):
    port, there = (8000 + i % 20, 0)[i % 2], ("127.0.0.1", "1.1.1.1")[i // 2 % 2]
    address = ("", "127.0.0.1")[there == "127.0.0.1" and i // 4 % 2]
    if i // 8 % 2:
        s, c = tcp(), tcp(); s.bind((address, port)); s.listen(2); c.connect((there, s.getsockname()[1])); a, _ = s.accept()
        # who closes first goes to TIME_WAIT: by turns
        for k in (c, a, s) if i // 16 % 2 else (s, a, c): k.close()
    else:
        s, c = udp(), udp(); s.bind((address, port)); number = s.getsockname()[1]
        if i // 16 % 2: c.connect((there, number)); c.send(b"x")
        else: c.sendto(b"x", (there, number))
        data, peer = s.recvfrom(9); s.sendto(data, peer); c.recv(9); s.close(); c.close()
print("done", flush=True)
{hold}
"""


@pytest.mark.timeout(0)
def test_no_port_is_lost(driver: Driver, request: pytest.FixtureRequest) -> None:
    cycles = request.config.getoption("--cycles")
    app = driver.app("1.1.1.1")
    code = LOOP.format(cycles=cycles, hold="import time; time.sleep(99)")
    process = driver.sandbox.start(["python3", "-c", code], cgroup=app)
    wait_until(lambda: "done\n" in process.output() or process.popen.poll() is not None, "it is done", 3600)
    assert process.output() == "done\n"
    lasting = driver.kernel.used_ports()
    rows = driver.kernel._maps["ports"].items()
    assert len(rows) == len(lasting) == 20, (
        "ten each of TCP and UDP; what the kernel chose went with its socket"
    )
    assert driver.kernel.services() == []
    driver.kernel.holdings.give_back(0)
    idle = driver.kernel.holdings.give_back(99)
    driver.kernel.add_ports(idle)
    assert set(idle) == lasting and driver.kernel.used_ports() == set()
    assert sorted(driver.kernel.take_ports()) == list(range(40000, 40200))
    assert not driver.kernel._maps["ports"].items() and not driver.kernel._maps["reals"].items()
    assert driver.kernel.lost() == 0 or cycles > 5000
    process.stop()


FIND = """
import socket
def find():
    s = socket.socket(); s.bind({address!r}); number = s.getsockname()[1]; s.close(); return number
number = find(); s = socket.create_server(({address[0]!r}, number)); c = socket.create_connection(("127.0.0.1", number)); a, _ = s.accept()
a.close(); c.close(); s.close()  # the server's end goes to TIME_WAIT
for _ in range(5000):
    if find() == number:
        plain = socket.socket(); plain.bind(({address[0]!r}, number)); plain.listen()
        socket.create_connection(("127.0.0.1", number)).close()
        print("bound")
        break
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "", "1.1.1.1"])
def test_a_number_that_the_kernel_chose_can_be_bound(driver: Driver, host: str) -> None:
    """Whatever the app did on that number before ("find an unused port"); the port of then rests."""
    app = driver.app("1.1.1.1")
    driver.sandbox.run(["sysctl", "-w", "net.ipv4.ip_local_port_range=33000 33031"]).ok()
    assert (
        driver.python(app, FIND.format(address=(host, 0)).replace("127.0.0.1", host or "127.0.0.1")).ok()
        == "bound\n"
    )
    assert len(driver.kernel.used_ports()) == 2
    driver.kernel.holdings.give_back(0)
    assert len(driver.kernel.holdings.give_back(99)) == 2
    assert driver.kernel.used_ports() == set() and not driver.kernel._maps["reals"].items()
