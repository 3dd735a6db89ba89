"""A program that makes events faster than they are read holds nobody up."""

from __future__ import annotations

import select

from kernel.driver import Driver

from appswitch.interceptor.events import ListenerDown
from appswitch.interceptor.libbpf import BATCH

LOOP = """
import socket
for _ in range(750):
    with socket.socket() as s:
        s.bind(('', 80)); s.listen()
"""


def test_events_come_in_batches_and_none_is_lost(driver: Driver) -> None:
    for ip in ("1.1.1.1", "2.2.2.2"):  # one app has a share of 2,000 in a second
        driver.python(driver.app(ip), LOOP).ok()
    sizes = []
    while select.select([driver.kernel.event_fd], [], [], 0)[0]:
        events = driver.kernel.read_events()
        sizes.append(len(events))
    assert sum(sizes) == 3000 and max(sizes) == BATCH, sizes
    assert isinstance(events[-1], ListenerDown) and driver.kernel.lost() == 0
