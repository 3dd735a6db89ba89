"""The registry: apps, services, vservices and names of this node, as they change.  Pure.

Every change is checked first; what cannot be is refused with an error that names the thing, the
value, the reason and what to do, and nothing is changed.  `snapshot` is what the rest reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from appswitch.agent.numbers import Numbers
from appswitch.agent.registry_checks import admissible, check_address, check_numbers, check_vservice
from appswitch.agent.vips import candidates
from appswitch.errors import Conflict, NotFound, UsageError
from appswitch.interceptor.index import Index, Key
from appswitch.model import App, Class, Mesh, Service, Snapshot, VService

VIP_RANGE = IPv4Network("241.0.0.0/8")
PEER_SHIFT: Final = 16
NO_PEER: Final = 0


class Registry:
    """State of the node.  Not thread-safe: one task changes it."""

    def __init__(
        self,
        node: str,
        node_ip: IPv4Address,
        *,
        vip_range: IPv4Network = VIP_RANGE,
        local_ips: frozenset[IPv4Address] = frozenset(),
        rest_port: int = 6664,
        dns_ip: IPv4Address | None = None,
        dns_port: int = 0,
        by_address: bool = False,
    ) -> None:
        """`local_ips`: the node's own addresses, `node_ip` included if it is one (it may be made up).

        `by_address`: policies may look at apps' addresses, so each address of a class is a peer.
        """
        self._base = Snapshot(
            node, node_ip, dns_ip=dns_ip, dns_port=dns_port, rest_port=rest_port, local_ips=local_ips
        )
        self._vips = vip_range
        self._by_address = by_address
        self._apps: dict[int, App] = {}
        self._services: dict[tuple[int, int, int, int], Service] = {}
        self._vservices: dict[str, VService] = {}
        self._fronts: dict[IPv4Address, set[str]] = {}
        self._classes: Numbers[Class] = Numbers("different labels and identities")
        self._peers: Numbers[Class] = Numbers("different addresses, labels and identities", NO_PEER + 1)
        self._cached: Snapshot | None = None
        self.index = Index(local_ips, rest_port)
        """The same state, for look-ups; read it, change it by this class only."""
        self.index.set_dns(dns_ip, dns_port)

    @property
    def snapshot(self) -> Snapshot:
        """All of the state, frozen; the same object until something changes."""
        if self._cached is None:
            self._cached = replace(
                self._base,
                apps=tuple(self._apps.values()),
                services=tuple(self._services.values()),
                vservices=tuple(self._vservices.values()),
            )
        return self._cached

    # --- classes

    @property
    def classes(self) -> tuple[Class | None, ...]:
        """By the number of the class, without address; None: no living app has it."""
        return self._classes.values

    @property
    def peers(self) -> tuple[Class | None, ...]:
        """By the number of the peer, classes with the address; None at 0: apps whose address is not known."""
        return self._peers.values

    def class_index(self, app_class: Class) -> int:
        """The word by which the kernel knows the class; the same as long as an app of it lives.

        Low half: the number of the class, whatever the address; high half: the number of the peer.
        """
        number = self._classes.number(_without_address(app_class))
        peer = NO_PEER if app_class.address is None else self._peers.number(app_class)
        if number is None or peer is None:
            raise NotFound(f"no app has the class {app_class}")
        return peer << PEER_SHIFT | number

    # --- apps

    def app(self, app_id: int) -> App:
        """Raises NotFound."""
        if (app := self._apps.get(app_id)) is None:
            raise NotFound(f"no app {app_id:08x} (see: ax get apps)")
        return app

    def vip(self, name: str) -> IPv4Address:
        """The virtual address of a name: its users' if it has any in the range, else by its hash.

        Nothing is reserved: it is the name's once an app or a vservice has both.  Raises Conflict if
        the range is full.
        """
        for app in self._apps.values():
            if app.name == name and app.ip in self._vips:
                return app.ip
        if (vservice := self._vservices.get(name)) is not None:
            for address in vservice.addresses:
                if address in self._vips:
                    return address
        for address in candidates(name, self._vips):
            if (
                address != self._base.dns_ip
                and address not in self._fronts
                and not self.index.has_address(address)
            ):
                return address
        raise Conflict(
            f"no virtual address is free in {self._vips} for {name!r}; give one by --ip or widen --vip-range"
        )

    def add_app(self, app: App, class_index: int | None = None) -> App:
        """A new app.  `class_index`: the one its class had before this daemon, if it shall keep it.

        Raises Conflict (id or address taken), UsageError (address of no use) or Exhausted (too many classes),
        with nothing changed.
        """
        if not 0 < app.id < 1 << 32:
            raise UsageError(f"app id {app.id:#x} is not in 1..0xffffffff")
        if app.id in self._apps:
            raise Conflict(f"app id {app.id_text} is taken; try again")
        for address in app.addresses:
            self._check_address(address, f"app {app.id_text}")
        app = self._numbered(app, class_index)
        self._apps[app.id] = app
        self.index.add_app(app)
        self._cached = None
        return app

    def update_app(self, app: App) -> None:
        """New facts about a living app (pid, cgroup, exposes); class and address stay."""
        before = self.app(app.id)
        if (before.app_class, before.addresses) != (app.app_class, app.addresses):
            raise UsageError(f"app {app.id_text}: class and address cannot change while it lives")
        self._apps[app.id] = app
        self.index.replace_app(app)
        self._cached = None

    def remove_app(self, app_id: int) -> App:
        """It ended: its services go too.  Raises NotFound."""
        app = self.app(app_id)
        for key in [key for key in self._services if key[0] == app_id]:
            self.index.remove_service(self._services.pop(key))
        del self._apps[app_id]
        self.index.remove_app(app)
        self._classes.leave(_without_address(app.app_class))
        if app.app_class.address is not None:
            self._peers.leave(app.app_class)
        self._cached = None
        return app

    # --- services

    def listener_up(self, service: Service) -> bool:
        """A port is listened on; False if that was known, or its app is not (any more)."""
        key = _service_key(service)
        if service.app not in self._apps or self._services.get(key) == service:
            return False
        # A real port is one service's: whoever had it is gone, though the event may still be on its way.
        own = self._apps[service.app].own_ip is not None  # a pod's ports are its own network's
        before = None if own else self.index.on_real_port(service.real_port, service.protocol)
        for old in (self._services.get(key), before):
            if old is not None:
                self.listener_down(old)
        self._services[key] = service
        self.index.add_service(service)
        self._cached = None
        return True

    def listener_down(self, service: Service) -> bool:
        """The last socket of a port was closed: app, protocol and both ports tell which.

        False if it was not known.
        """
        if (known := self._services.pop(_service_key(service), None)) is None:
            return False
        self.index.remove_service(known)
        self._cached = None
        return True

    def resync(self, services: Iterable[Service]) -> tuple[list[Service], list[Service]]:
        """Make the table equal to what the kernel has; returns (came, went).  Unknown apps' are left out."""
        wanted = {_service_key(each): each for each in services if each.app in self._apps}
        went = [each for key, each in self._services.items() if wanted.get(key) != each]
        came = [each for key, each in wanted.items() if self._services.get(key) != each]
        for each in went:
            self.listener_down(each)
        for each in came:
            self.listener_up(each)
        return came, went

    # --- vservices and names

    def create_vservice(self, vservice: VService) -> VService:
        """A user's vservice; without addresses it gets one by its name.  Returns it as it is now.

        Raises UsageError (it makes no sense) or Conflict (name or IP:port taken), with nothing changed.
        """
        check_vservice(vservice)
        name = vservice.name
        if name in self._vservices:
            raise Conflict(f"vservice {name!r} exists already; choose another name or delete that one")
        if not vservice.addresses:
            vservice = replace(vservice, addresses=(self.vip(name),))
        for address in vservice.addresses:
            self._check_address(address, f"vservice {name!r}")
            for ports in vservice.ports:
                if holder := self.index.claimant(Key(int(address), ports.port, vservice.protocol)):
                    raise Conflict(
                        f"vservice {name!r}: {address}:{ports.port} is taken by vservice {holder!r};"
                        " choose another --ip or port, or delete that one"
                    )
        self._add_vservice(vservice)
        return vservice

    def delete_vservice(self, name: str) -> VService:
        """Raises NotFound, or Conflict for one that Istio pushed."""
        if (vservice := self._vservices.get(name)) is None:
            raise NotFound(f"no vservice {name!r} (see: ax get vservices)")
        if vservice.origin != "user":
            raise Conflict(
                f"vservice {name!r} comes from {vservice.origin}: it goes when it is deleted there"
            )
        self._remove_vservice(vservice)
        return vservice

    def replace_istio(self, mesh: Mesh) -> tuple[str, ...]:
        """All that Istio knows, in place of what it knew before.

        Returns the vservices left out: their name is a user's, or a number in them fits nowhere.  IP:ports
        that a user's vservice has stay that one's until it is deleted.  Backends on the node's loopback or at
        link-local addresses go: whoever may write a ServiceEntry is no user of the node.
        """
        wanted: dict[str, VService] = {}
        left_out = []
        for each in mesh.vservices:
            try:
                check_numbers(each)
            except UsageError:
                left_out.append(each.name)
            else:
                wanted[each.name] = admissible(each)
        for name, old in list(self._vservices.items()):
            if old.origin != "istio":
                if wanted.pop(name, None) is not None:
                    left_out.append(name)
            elif wanted.get(name) == old:
                del wanted[name]
            else:
                self._remove_vservice(old)
        for each in wanted.values():
            self._add_vservice(each)
        before = self._base
        policies = before.policies if mesh.policies is None else mesh.policies
        outbound = before.outbound if mesh.outbound is None else mesh.outbound
        if (mesh.names, policies, outbound) != (before.names, before.policies, before.outbound):
            self._base = replace(before, names=mesh.names, policies=policies, outbound=outbound)
            self._cached = None
            self.index.set_policies(policies)
        if outbound != before.outbound:
            self.index.set_outbound(outbound)
        return tuple(left_out)

    def set_dns(self, address: IPv4Address | None, port: int) -> None:
        """The vIP that apps' resolv.conf names, and the port on 127.0.0.1 that answers; None: off."""
        self._base = replace(self._base, dns_ip=address, dns_port=port)
        self.index.set_dns(address, port)
        self._cached = None

    # --- inside

    def _numbered(self, app: App, word: int | None) -> App:
        """The app as its class and peer are numbered, which it has joined."""
        plain, address = _without_address(app.app_class), app.app_class.address
        number: int | None = None
        peer: int | None = None
        if word is None:
            address = app.source_ip if self._by_address else None
        else:
            number, peer = word & 0xFFFF, word >> PEER_SHIFT
            if peer == NO_PEER:
                address = None
        app_class = replace(plain, address=address)
        try:
            if address is None and peer:
                raise Conflict(f"peer {peer} has no address")
            self._classes.check(plain, number)
            if address is not None:
                self._peers.join(app_class, peer)
            self._classes.join(plain, number)
        except Conflict as error:
            raise Conflict(f"class index {word} of app {app.id_text} is another class's: {error}") from error
        return replace(app, app_class=app_class)

    def _add_vservice(self, vservice: VService) -> None:
        self._vservices[vservice.name] = vservice
        for address in vservice.addresses:
            self._fronts.setdefault(address, set()).add(vservice.name)
        self.index.add_vservice(vservice)
        self._cached = None

    def _remove_vservice(self, vservice: VService) -> None:
        del self._vservices[vservice.name]
        for address in vservice.addresses:
            users = self._fronts.get(address, set())
            users.discard(vservice.name)
            if not users:
                self._fronts.pop(address, None)
        self.index.remove_vservice(vservice)
        self._cached = None

    def _check_address(self, address: IPv4Address, who: str) -> None:
        check_address(address, who)
        if address == self._base.dns_ip:
            raise Conflict(f"{who}: {address} is the built-in DNS server's; choose another --ip")


def _without_address(app_class: Class) -> Class:
    return replace(app_class, address=None)


def _service_key(service: Service) -> tuple[int, int, int, int]:
    return service.app, service.protocol, service.port, service.real_port
