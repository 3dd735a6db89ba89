"""A random mesh, twice: as real processes under a real daemon, and as the `Snapshot` that `decide()` reads.

The snapshot is made from what the test ordered, not from what the daemon believes: so a registry that
forgets something is found as well.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from e2e.node import Node
from e2e.sandbox import NODE_IP, Process

from appswitch.model import (
    App,
    Backend,
    BindScope,
    Class,
    Labels,
    LbPolicy,
    PortMap,
    Protocol,
    Service,
    Snapshot,
    VService,
)

PUPPET = Path(__file__).parent / "puppet.py"
PORTS = (80, 81, 82)
HOST_PORT = 83
"""A host program listens here on the node's address, 127.0.0.1 included."""
IPS = ("1.1.1.1", "1.1.1.2", "1.1.1.3", NODE_IP)
LABELS = ("role=a", "role=b", "role=a,tier=x", "zone=default", "role=b,zone=default")
VIPS = ("5.5.5.1", "5.5.5.2", "1.1.1.1")


@dataclass
class Puppet:
    """A process under `ax run` and what it has been told."""

    name: str
    ip: str
    labels: str
    process: Process
    listening: dict[int, str] = field(default_factory=dict)
    answers: int = 0

    def order(self, node: Node, **what: object) -> Any:
        """Sends one order and returns the answer."""
        self.process.send(json.dumps(what))
        self.answers += 1

        def lines() -> list[str]:
            assert self.process.popen.poll() is None, self.process.output()
            text = self.process.output()
            return text.splitlines() if text.count("\n") >= self.answers else []

        answer = node.wait(lines, f"{self.name} answers {what}", 30)[self.answers - 1]
        assert answer[0] in '["', f"{self.name}, told {what}:\n{self.process.output()[-2000:]}"
        return json.loads(answer)


class Mesh:
    """Apps, listeners and vservices on one node, changed at random."""

    numbers = itertools.count(1)

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.node = node
        self.chance = chance
        self.puppets: list[Puppet] = []
        self.vservices: dict[str, VService] = {}
        for _ in range(chance.randint(3, 5)):
            self.add_app()
        for _ in range(chance.randint(1, 4)):
            self.toggle_vservice()
        for puppet in self.puppets:
            for port in PORTS:
                if chance.random() < 0.5:
                    self.toggle_listener(puppet, port)

    def add_app(self) -> None:
        """One more app, at a random address, with random labels."""
        name = f"app{next(self.numbers)}"
        ip, labels = self.chance.choice(IPS), self.chance.choice(LABELS)
        where = [] if ip == NODE_IP else ["--ip", ip]
        flags = [*where, "--labels", labels, "--new-netns=false"]
        process = self.node.start(*flags, sys.executable, str(PUPPET), name, stdin=subprocess.PIPE)
        self.puppets.append(Puppet(name, ip, labels, process))

    def end_app(self) -> None:
        """A random app is killed."""
        puppet = self.puppets.pop(self.chance.randrange(len(self.puppets)))
        puppet.process.popen.kill()
        puppet.process.wait()

    def toggle_listener(self, puppet: Puppet, port: int) -> None:
        """Opens the port (rarely on loopback only), or closes it."""
        if port in puppet.listening:
            puppet.order(self.node, close=port)
            del puppet.listening[port]
        else:
            address = self.chance.choice(("0.0.0.0", "0.0.0.0", puppet.ip, "127.0.0.1"))
            puppet.order(self.node, listen=port, address=address)
            puppet.listening[port] = address

    def toggle_vservice(self) -> None:
        """Creates a vservice, or deletes one."""
        names = ("vs0", "vs1", "vs2", "vs3")
        name = self.chance.choice(names)
        if name in self.vservices:
            del self.vservices[name]
            self.node.ax("delete", "vservice", name).ok()
            return
        ip, policy = self.chance.choice(VIPS), self.chance.choice(list(LbPolicy))
        port = PORTS[names.index(name) % len(PORTS)] if ip == "1.1.1.1" else 800 + names.index(name)
        target = self.chance.choice(PORTS)
        some = self.chance.sample((*IPS, "9.9.9.9"), self.chance.randint(1, 3))
        backends = [f"{address}:{HOST_PORT}" if self.chance.random() < 0.1 else address for address in some]
        taken = {(str(other.addresses[0]), other.ports[0].port) for other in self.vservices.values()}
        if (ip, port) in taken:
            return
        create = ["--ip", ip, "--backends", ",".join(backends), "--lbtype", policy.value]
        self.node.ax("create", "vservice", *create, "--ports", f"{port}:{target}", name).ok()
        self.vservices[name] = VService(
            name,
            (IPv4Address(ip),),
            (PortMap(port, target),),
            tuple(_backend(text) for text in backends),
            policy,
        )

    def change(self) -> None:
        """One random change."""
        what = self.chance.random()
        if what < 0.5:
            self.toggle_listener(self.chance.choice(self.puppets), self.chance.choice(PORTS))
        elif what < 0.8:
            self.toggle_vservice()
        elif what < 0.9 or len(self.puppets) < 3:
            self.add_app()
        else:
            self.end_app()

    def settle(self) -> Snapshot:
        """Waits until the daemon knows of every listener and every end, and says what there is."""

        def known() -> list[dict[str, Any]]:
            apps = {row["name"]: row["appid"] for row in self._apps()}
            rows: list[dict[str, Any]] = self.node.get("sockets")
            have = {(row["appid"], int(row["bindip"].rsplit(":", 1)[1])) for row in rows}
            want = {(apps.get(puppet.name), port) for puppet in self.puppets for port in puppet.listening}
            settled = len(apps) == len(self.puppets) == len(self.node.get("apps"))
            return rows or [{}] if have == want and settled else []

        rows = self.node.wait(known, "the daemon knows all listeners")
        ids = {row["name"]: int(row["appid"], 16) for row in self._apps()}
        apps = tuple(
            App(ids[p.name], "", Class(_labels(p.labels)), IPv4Address(p.ip), p.name) for p in self.puppets
        )
        real = {(row["appid"], int(row["bindip"].rsplit(":", 1)[1])): row["real_port"] for row in rows if row}
        services = tuple(
            Service(ids[p.name], Protocol.TCP, port, real[f"{ids[p.name]:08x}", port], _scope(address))
            for p in self.puppets
            for port, address in p.listening.items()
        )
        return Snapshot(
            "host0",
            IPv4Address(NODE_IP),
            apps,
            services,
            tuple(self.vservices.values()),
            local_ips=frozenset({IPv4Address(NODE_IP)}),
        )

    def _apps(self) -> list[dict[str, Any]]:
        """The apps by their puppets' names: the process tells which is which."""
        pids = {puppet.process.pid: puppet.name for puppet in self.puppets}
        return [{**row, "name": pids[row["pid"]]} for row in self.node.get("apps") if row["pid"] in pids]

    def destinations(self, snapshot: Snapshot) -> list[tuple[str, int]]:
        """All that could be of interest: right and wrong ports of every address, real ports, outside."""
        found = [(ip, port) for ip in (*IPS, "127.0.0.1") for port in (*PORTS, HOST_PORT, 84)]
        found += [(str(v.addresses[0]), v.ports[0].port) for v in self.vservices.values()]
        found += [(vip, 799) for vip in VIPS]
        found += [(host, s.real_port) for s in snapshot.services for host in (NODE_IP, "127.0.0.1")]
        return [*found, (NODE_IP, 6664), ("127.0.0.1", 6664), ("9.9.9.9", 80), ("169.254.169.254", 80)]

    def close(self) -> None:
        """Ends all."""
        for name in self.vservices:
            self.node.ax("delete", "vservice", name).ok()
        self.node.stop_apps()


def start_host_program(node: Node) -> None:
    """A server of the node's own, that DIRECT verdicts lead to."""
    script = f"import socket; print(socket.create_connection(('{NODE_IP}', {HOST_PORT}), 5).recv(64))"
    dial = [sys.executable, "-c", script]
    node.host_start(sys.executable, str(PUPPET), "host", str(HOST_PORT))
    node.wait(lambda: "host" in node.host(*dial).out, "the host's program listens")


def _labels(text: str) -> Labels:
    pairs = (pair.partition("=") for pair in text.split(","))
    return Labels(frozenset((key, value) for key, _, value in pairs))


def _scope(address: str) -> BindScope:
    if address == "0.0.0.0":
        return BindScope.ANY
    return BindScope.LOOPBACK if address.startswith("127.") else BindScope.VIRTUAL


def _backend(text: str) -> Backend:
    address, _, port = text.partition(":")
    return Backend(IPv4Address(address), int(port or 0))
