"""The kernel driver: loads the BPF object, finds or makes its pinned maps, attaches, writes.

Attachments live with the cgroups of the apps and maps with their pins, so nothing here stops
when the process does: the next `Kernel.open` on the same pins goes on.  Programs are loaded anew
by each daemon and replace those of its predecessor on every app it adopts.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from appswitch.errors import Exhausted, InvalidInput, Unsupported
from appswitch.interceptor import abi, libbpf
from appswitch.interceptor.counters import Counters
from appswitch.interceptor.events import Event, decode
from appswitch.interceptor.holdings import Holdings
from appswitch.interceptor.netns import Pod
from appswitch.interceptor.programs import MAPPED, MAPS, OBJECT, OWN_PROGRAMS, PROGRAMS, WITHOUT_MAPS
from appswitch.interceptor.sock_diag import Listener
from appswitch.interceptor.statistics import Statistics
from appswitch.interceptor.tables import (
    Command,
    DeleteKey,
    Dump,
    InsertKey,
    SetService,
    WriteBackends,
    WriteGroup,
    WriteVerdicts,
)
from appswitch.interceptor.waiting import OWN_NETWORK, Waiting
from appswitch.model import BindScope, Expose, Protocol, Service

BPFFS: Final = Path("/sys/fs/bpf")


class Kernel:
    """Owner of the maps and programs of one run directory.  Not safe for several threads."""

    @staticmethod
    def open(pin_dir: Path, *, clean: bool, network: Path = OWN_NETWORK) -> Kernel:
        """Loads the programs over the maps pinned at `pin_dir`, made where they are missing.

        `clean` forgets what is pinned there; `network` is the node's namespace.  Raises Unsupported with
        the reason and the mend.
        """
        if os.geteuid() != 0:
            raise Unsupported("the kernel driver needs root: start the daemon as root (sudo ax daemon)")
        _mount_bpffs()
        if clean:
            _remove_pins(pin_dir)
        _check_pins(pin_dir)
        pin_dir.mkdir(parents=True, exist_ok=True)
        try:
            return Kernel(pin_dir, network)
        except OSError as error:
            if error.errno == errno.EINVAL and any(pin_dir.iterdir()):
                raise Unsupported(
                    f"the maps pinned at {pin_dir} are of another version ({error}): "
                    "stop the apps and start with: ax daemon --clean"
                ) from error
            raise Unsupported(
                f"the BPF programs do not load ({error}): Linux 6.1 or newer with CONFIG_CGROUP_BPF is "
                f"needed, this is {os.uname().release}"
            ) from error

    def __init__(self, pin_dir: Path, network: Path = OWN_NETWORK) -> None:
        self.pin_dir = pin_dir
        self.sock_map_pin = pin_dir / "sockets"
        self._object = libbpf.Object(OBJECT, {name: pin_dir / name for name in MAPS})
        self._maps = {
            name: libbpf.Map(self._object.map_fd(name), name, *sizes) for name, sizes in MAPS.items()
        }
        self._memory = {
            name: mmap.mmap(self._maps[name].fd, size, mmap.MAP_SHARED) for name, size in MAPPED.items()
        }
        # one 8-byte store each: what a program reads is the old word or the new one
        self._services = memoryview(self._memory["services"]).cast("Q")
        self._verdicts = memoryview(self._memory["verdicts"]).cast("Q")
        self._programs = {name: self._object.program_fd(name) for name in PROGRAMS | OWN_PROGRAMS}
        lookup = self._object.program_fd("ax_lookup")
        shown = {**self._programs, "ax_lookup": lookup}
        self.statistics = Statistics(shown, PROGRAMS | OWN_PROGRAMS, self._maps)
        self._map_ids = {libbpf.map_id(each.fd) for each in self._maps.values()}
        self.holdings = Holdings(*(self._maps[name] for name in ("ports", "reals", "usages")))
        self.counters = Counters(*(self._maps[name] for name in ("counts", "others", "shares", "failures")))
        self.waiting = Waiting(self._maps, lookup, pin_dir, network)
        self._records: list[bytes] = []
        self._ring = libbpf.RingBuffer(self._maps["events"].fd, self._records.append)
        self.event_fd = self._ring.fd
        self._undecoded = 0
        self._cgroups: dict[int, bytes] = {}
        """Keys of `apps` by AppId, of the apps that this daemon attached."""

    def attach(self, cgroup: Path, app_id: int, class_index: int, ip: IPv4Address, flags: int) -> None:
        """Attaches the programs to the cgroup and says who lives there.

        An app whose sockets are injected needs no program on its own cgroup: its sockets are
        the holder's.  Raises OSError.
        """
        if flags >> abi.APP_WAIT_SHIFT:
            self.waiting.admit(app_id)
        if flags & abi.APP_EMPTY:
            self._maps["living"].update(struct.pack("=I", app_id), struct.pack("=I", flags))
            return
        # The holder's cgroup is this run directory's by its name, whatever was forgotten meanwhile.
        old = _is_anyones if flags & abi.APP_HOLDER else self._may_replace
        programs = OWN_PROGRAMS if flags & abi.APP_OWN_NETWORK else PROGRAMS
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name, kind in programs.items():
                try:
                    libbpf.attach(self._programs[name], descriptor, kind, old)
                except PermissionError as error:
                    there = ", ".join(name for name, _ in libbpf.attached(descriptor, kind)) or "above it"
                    raise PermissionError(
                        error.errno, f"another program ({there}) is attached and admits none beside it"
                    ) from error
            key = struct.pack("=Q", os.fstat(descriptor).st_ino)  # a cgroup's id is its inode number
            self._maps["apps"].update(key, abi.APP.pack(app_id, class_index, ip.packed, flags))
            self._cgroups[app_id] = key
            self.statistics.cgroups.add(cgroup)
        finally:
            os.close(descriptor)

    def detach(self, cgroup: Path, *, anyones: bool = False) -> None:
        """Takes our programs off the cgroup, which lives on; no error if it is gone.  Raises OSError.

        `anyones`: also those of a daemon whose maps are gone (`--clean`).
        """
        try:
            descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            for kind in sorted({*PROGRAMS.values(), *OWN_PROGRAMS.values()}):
                libbpf.detach(descriptor, kind, _is_anyones if anyones else self._is_ours)
        finally:
            os.close(descriptor)

    def adopt_listener(self, app_id: int, ip: IPv4Address, listener: Listener, pod: Pod | None) -> None:
        """A socket that listened before the app was attached is in the table from now on.

        In the node's own network it keeps its port, which stays open to strangers.  Raises OSError: full.
        """
        key = abi.PORT_KEY.pack(app_id, listener.port, listener.protocol, 0)
        real_key = abi.REAL_KEY.pack(listener.port, listener.protocol, 0)
        if pod is None and self._maps["reals"].get(real_key) is not None:
            return  # it came after the programs: its number is one that they gave or counted
        try:
            self._maps["served"].update(struct.pack("=Q", listener.cookie), key, libbpf.NOEXIST)
        except FileExistsError:
            return  # the programs saw it begin
        value = self._maps["ports"].get(key)
        count = abi.PORT.unpack(value)[3] if value else 0
        bits, address = 1, ip
        if pod is not None:
            bits |= abi.PORT_OWN
            address = listener.address if int(listener.address) else pod.address
        else:
            self._maps["reals"].update(real_key, abi.REAL.pack(app_id, ip.packed, listener.port, 1, bytes(4)))
        word = int.from_bytes(address.packed, sys.byteorder)
        port = listener.port
        self._maps["ports"].update(key, abi.PORT.pack(port, 0, bits, count + 1, word, port, listener.cookie))

    def _is_ours(self, name: str, maps: tuple[int, ...]) -> bool:
        """A program of this run directory's, whichever daemon loaded it: it uses its maps."""
        return name == WITHOUT_MAPS or (_is_anyones(name, maps) and not self._map_ids.isdisjoint(maps))

    def _may_replace(self, name: str, maps: tuple[int, ...]) -> bool:
        """Ours; raises OSError where it is another daemon's: two would decide one after the other."""
        if _is_anyones(name, maps) and not self._is_ours(name, maps):
            raise OSError(errno.EBUSY, "it is an app of another AppSwitch daemon, or of one before --clean")
        return self._is_ours(name, maps)

    def set_pod(self, app_id: int, pod: Pod) -> None:
        """The app has a network of its own; before its programs are attached.  Raises OSError: full."""
        value = abi.POD.pack(pod.address.packed, pod.node.packed, pod.netns)
        self._maps["pods"].update(struct.pack("=I", app_id), value)

    def expose(self, app_id: int, ip: IPv4Address, expose: Expose) -> None:
        """The app's TCP port will really be one of the node, and strangers may dial it.

        Before the app binds.  Raises OSError: the map is full.
        """
        port, host_port = expose.port, expose.host_port
        at = (expose.host_ip or IPv4Address(0)).packed
        # a second socket of the same port, for IPv6 alone, gets a port of the pool as ever
        key = abi.PORT_KEY.pack(app_id, port, Protocol.TCP, 0)
        address = int.from_bytes(ip.packed, sys.byteorder)
        self._maps["ports"].update(key, abi.PORT.pack(host_port, 0, 0, 0, address, host_port, 0))
        self._maps["reals"].update(
            abi.REAL_KEY.pack(host_port, Protocol.TCP, 0), abi.REAL.pack(app_id, ip.packed, port, 1, at)
        )

    def owner(self, descriptor: int) -> int:
        """AppId of the app whose socket it is; 0: no app's, or no socket."""
        value = self._maps["sockets"].get(struct.pack("=i", descriptor))
        return int(abi.APP.unpack_from(value)[0]) if value is not None else 0

    def forget(self, app_id: int) -> list[int]:
        """Drops the ports of an app that ended; returns the real ones that came from the pool.

        Sockets of its that live on, passed to other programs, reach nobody from now on.
        """
        self._maps["living"].delete(struct.pack("=I", app_id))
        self._maps["usages"].delete(struct.pack("=I", app_id))
        self.waiting.forget(app_id)
        self._retire(app_id)
        freed = []
        for key, value in self._maps["ports"].items():
            owner, _, protocol, _ = abi.PORT_KEY.unpack(key)
            if owner != app_id:
                continue
            real, _, bits, _, _, lasting, _ = abi.PORT.unpack(value)
            self._maps["ports"].delete(key)
            if bits & abi.PORT_OWN:
                continue
            for number in {real, lasting} - {0}:
                behind = abi.REAL_KEY.pack(number, protocol, 0)
                # a port that the kernel chose may have become another app's meanwhile
                if (found := self._maps["reals"].get(behind)) and abi.REAL.unpack(found)[0] == app_id:
                    self._maps["reals"].delete(behind)
            if lasting:
                freed.append(lasting)
        for cookie, key in self._maps["served"].items():
            if abi.PORT_KEY.unpack(key)[0] == app_id:
                self._maps["served"].delete(cookie)
        if self._maps["pods"].delete(struct.pack("=I", app_id)):
            for key, value in self._maps["crossings"].items():  # its address is another's next
                if abi.CROSSING.unpack(value)[0] == app_id:
                    self._maps["crossings"].delete(key)
        return freed

    def _retire(self, app_id: int) -> None:
        """Only where a socket keeps the storage of a cgroup that is gone, as a rule."""
        known = self._cgroups.pop(app_id, None)
        for key in [known] if known else list(self._maps["apps"].keys()):
            owner, class_index, ip, _ = abi.APP.unpack(self._maps["apps"].get(key) or bytes(abi.APP.size))
            if owner == app_id:
                with suppress(OSError):  # it has gone just now, with its last socket
                    self._maps["apps"].update(key, abi.APP.pack(owner, class_index, ip, abi.APP_ENDED))

    def apply(self, commands: Sequence[Command]) -> None:
        """Carries out table commands in order.  Raises Exhausted where a map is full."""
        for command in commands:
            match command:
                case WriteBackends(first, data):
                    self._write("backends", first * abi.BACKEND.size, data)
                case WriteGroup(index, data, inherit):
                    if inherit:  # round robin goes on where the group before it stood
                        data = self._with_next_of(inherit, data)
                    self._write("groups", index * abi.GROUP.size, data)
                case WriteVerdicts(first, data):
                    for place, word in enumerate(struct.unpack(f"={len(data) // 8}Q", data), first):
                        self._verdicts[place] = word
                case SetService(index, word):
                    self._services[index] = word
                case InsertKey(key, index):
                    try:
                        self._maps["keys"].update(key, struct.pack("=I", index))
                    except OSError as error:
                        raise Exhausted(
                            f"the kernel's service table is full at {abi.KEYS} keys: delete vservices"
                        ) from error
                case DeleteKey(key):
                    self._maps["keys"].delete(key)

    def _with_next_of(self, group: int, data: bytes) -> bytes:
        start = group * abi.GROUP.size + abi.GROUP_NEXT_OFFSET
        following = self._memory["groups"][start : start + 8]
        return data[: abi.GROUP_NEXT_OFFSET] + following + data[abi.GROUP_NEXT_OFFSET + 8 :]

    def _write(self, name: str, offset: int, data: bytes) -> None:
        self._memory[name][offset : offset + len(data)] = data

    def dump(self) -> Dump:
        """The tables as they are, for Tables.restore."""
        return Dump(
            keys={key: struct.unpack("=I", value)[0] for key, value in self._maps["keys"].items()},
            services=self._memory["services"],
            verdicts=self._memory["verdicts"],
            groups=self._memory["groups"],
            backends=self._memory["backends"],
        )

    def services(self) -> list[Service]:
        """Every port that is listened on now."""
        found = []
        for key, value in self._maps["ports"].items():
            app, port, protocol, _ = abi.PORT_KEY.unpack(key)
            real, scope, _, listening, _, lasting, cookie = abi.PORT.unpack(value)
            # a UDP socket that let the kernel choose its port is a client's
            if listening > 0 and (lasting or protocol == Protocol.TCP):
                found.append(Service(app, Protocol(protocol), port, real, BindScope(scope), cookie))
        return found

    def used_ports(self) -> set[int]:
        """Real ports that apps hold until they end, listening or not; and the hole."""
        ports = (abi.PORT.unpack(value) for _, value in self._maps["ports"].items())
        held = {port[5] for port in ports if not port[2] & abi.PORT_OWN}
        return held | {self.waiting.hole} - {0}

    def set_local_addresses(self, addresses: Iterable[IPv4Address]) -> None:
        """The node's own addresses: a pool port dialled there counts as the service behind it."""
        wanted = {address.packed for address in addresses}
        for key in list(self._maps["locals"].keys()):
            if key not in wanted:
                self._maps["locals"].delete(key)
        for key in wanted:
            self._maps["locals"].update(key, struct.pack("=I", 1))

    def add_ports(self, ports: Iterable[int]) -> None:
        """Puts ports into the stock.  Raises Exhausted where the queue is full."""
        for port in ports:
            try:
                self._maps["pool"].push(struct.pack("=I", port))
            except OSError as error:
                raise Exhausted(f"the stock of ports is full: port {port} was not added") from error

    def take_ports(self) -> list[int]:
        """Empties the stock, for a daemon that takes over and knows nothing of it."""
        taken = []
        while (value := self._maps["pool"].pop()) is not None:
            taken.append(struct.unpack("=I", value)[0])
        return taken

    def read_events(self) -> list[Event]:
        """All events that wait.  A record that does not decode counts as lost."""
        self._ring.consume()
        events = []
        for record in self._records:
            try:
                events.append(decode(record))
            except InvalidInput:
                self._undecoded += 1
        self._records.clear()
        return events

    def lost(self) -> int:
        """How many events did not fit into the ring, or did not decode: then read services() anew."""
        return int(struct.unpack_from("=Q", self._memory["lost"])[0]) + self._undecoded

    def hushed(self) -> int:
        """How many refusals were not told, because their app had had its share of the second."""
        return int(struct.unpack_from("=Q", self._memory["lost"], 8)[0])

    def close(self) -> None:
        """Lets go; everything pinned or attached works on."""
        self._ring.close()
        self._services.release()
        self._verdicts.release()
        for memory in self._memory.values():
            memory.close()
        self._object.close()

    def remove(self) -> None:
        """Unpins everything.  Attached programs go with their cgroups."""
        _remove_pins(self.pin_dir)


def _is_anyones(name: str, _maps: tuple[int, ...]) -> bool:
    """A program of some AppSwitch daemon's."""
    return name.startswith("ax_")


def _check_pins(pin_dir: Path) -> None:
    """Raises Unsupported where others may put maps in the place of ours: bpffs is often open to all."""
    for place in (pin_dir.parent, pin_dir):
        if place == BPFFS or not place.exists():
            continue
        found = place.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Unsupported(
                f"{place} is not root's alone (owner {found.st_uid}, mode {found.st_mode & 0o7777:o}): "
                "others could have put maps there; remove it"
            )


def _mount_bpffs() -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(BPFFS) and fields[fields.index("-") + 1] == "bpf":
            return
    try:
        subprocess.run(
            ["mount", "-t", "bpf", "-o", "mode=0700", "bpf", str(BPFFS)],
            check=True,
            capture_output=True,
            timeout=10,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise Unsupported(
            f"no bpf file system at {BPFFS}, and mounting one failed ({error}): "
            f"mount it with: mount -t bpf bpf {BPFFS}"
        ) from error


def _remove_pins(pin_dir: Path) -> None:
    shutil.rmtree(pin_dir, ignore_errors=True)
    parent = pin_dir.parent
    if parent != BPFFS and parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
