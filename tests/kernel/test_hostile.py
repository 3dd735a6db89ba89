"""Odd packets at the ports of apps: nobody is admitted, and who may is served as ever."""

from __future__ import annotations

import json
from pathlib import Path

from kernel.driver import Driver

from appswitch.interceptor.events import AdmissionRefused

HOSTILE = Path(__file__).with_name("hostile.py")
COUNT = 3000
SERVER = """
import os, socket, threading
t = socket.socket(socket.{family}); t.bind(('', 80)); t.listen(100)
u = socket.socket(socket.{family}, socket.SOCK_DGRAM); u.bind(('', 53))
def accept():
    while True: c, peer = t.accept(); os.write(1, b'tcp ' + peer[0].encode() + b'\\n'); c.close()
def receive():
    while True:
        data, peer = u.recvfrom(999); os.write(1, b'udp ' + peer[0].encode() + b'\\n'); u.sendto(b'yes', peer)
for what in (accept, receive): threading.Thread(target=what).start()
print('up', flush=True)
"""
CONTROL = """
import socket, time
s = socket.socket(); s.bind(('', 0)); s.listen(1000); print(s.getsockname()[1], flush=True); time.sleep(99)
"""
CLIENT = """
import socket
s = socket.socket(); s.settimeout(5); s.connect(('1.1.1.1', 80)); s.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(b'x', ('1.1.1.1', 53)); print(u.recv(9))
"""


def attack(driver: Driver, family: str, seed: int) -> None:
    server, client = driver.app("1.1.1.1"), driver.app("2.2.2.2")
    process = driver.serve(server, SERVER.format(family=family))
    control = driver.serve("control", CONTROL)
    real = {service.port: service.real_port for service in driver.kernel.services()}
    numbers = (seed, COUNT, real[80], real[53], int(control.output()))
    argv = ["python3", str(HOSTILE), *map(str, numbers)]
    said = json.loads(driver.sandbox.run(argv, timeout=50).ok())
    assert said["sent"] > COUNT and said["control"] > COUNT // 100, said
    assert not said.get("tcp") and not said.get("udp"), said
    assert driver.python(client, CLIENT).ok() == "b'yes'\n"
    mapped = "::ffff:" if family == "AF_INET6" else ""
    heard = sorted(process.output().splitlines())
    assert heard == [f"tcp {mapped}2.2.2.2", f"udp {mapped}2.2.2.2", "up"]
    driver.follow()
    assert any(isinstance(event, AdmissionRefused) for event in driver.seen)


def test_odd_packets_are_not_admitted(driver: Driver) -> None:
    attack(driver, "AF_INET", seed=1)


def test_odd_packets_are_not_admitted_over_both_families(driver: Driver) -> None:
    attack(driver, "AF_INET6", seed=2)
