"""An app from its admission to its end: what is made for it, in which order, and how it is undone.

An app ends when its first process has exited and nobody lives in its cgroup any more; until then its
children belong to it.  Nothing of an app is left then but its ports, which rest for a while.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import signal
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from appswitch.agent import claims
from appswitch.agent.claims import ANYTHING, UserRules
from appswitch.agent.hello import Request
from appswitch.agent.journal import AppRecord, Journal
from appswitch.agent.launch import Caller, Started
from appswitch.agent.logs import Event, Log
from appswitch.agent.port_stock import is_free
from appswitch.agent.registry import Registry
from appswitch.agent.seams import Cgroups, HolderLike, InnerApp, KernelDriver, Networks
from appswitch.agent.tasks import spawn
from appswitch.agent.waiters import Waiters, wait_flags
from appswitch.agent.writer import Writer
from appswitch.errors import (
    AppSwitchError,
    Conflict,
    Denied,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from appswitch.interceptor import abi
from appswitch.model import App, Expose

ID_BASE = 0xF000_0000
"""AppIds look like the manual's: f0…; the rest is drawn, so that two daemons rarely draw the same."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the keeper of apps stands on."""

    registry: Registry
    writer: Writer
    kernel: KernelDriver
    cgroups: Cgroups
    networks: Networks
    journal: Journal
    holder: HolderLike
    freed: Callable[[Iterable[int]], None]
    """Takes back the real ports of an app that ended."""
    pooled: Callable[[int], bool]
    """Whether a port is one of `--ports`."""
    log: Log
    listening: Callable[[], None]
    """Reads the kernel's service table anew: more is in it than its events told."""
    resolv: str
    """Path of the apps' resolv.conf; "" where built-in DNS is off."""
    connect_wait: float = 0.0
    """Seconds, of apps that do not say."""
    rules: UserRules = ANYTHING
    """For ordinary users."""


class Apps:
    """All apps of this node; implements `launch.Keeper`."""

    def __init__(self, parts: Parts) -> None:
        self._ = parts
        self._root = parts.cgroups.cgroup_root()
        self._pidfds: dict[int, int] = {}
        """By AppId, while the first process lives."""
        self._moves: dict[int, asyncio.Task[None]] = {}
        """First processes on their way into their app's cgroup."""
        self._lingering: set[int] = set()
        """Apps whose first process has gone and whose cgroup still has others."""
        self._discarded: set[Path] = set()
        """Cgroups of refused launches in which somebody still was."""
        self._namespaces: dict[int, int] = {}
        """By AppId: network namespaces that were there before and got the app's address on their lo."""
        self._waiters = Waiters(parts.kernel, parts.log, parts.connect_wait)

    async def start(self, request: Request, caller: Caller) -> Started:
        """See `launch.Keeper`."""
        user = await self._user(request, caller)
        if caller.peer.uid:
            request = await self._check_claims(request, caller.peer.uid)
        self._check_exposes(request.exposes, caller)
        request = self._place(self._resolver(request), caller)
        inside = self._inside(caller)
        for app_id, move in list(self._moves.items()):  # an app that runs `ax run` as its first act
            if self._.registry.app(app_id).pid == caller.peer.pid:
                await asyncio.wait([move])
        with ExitStack() as undo:
            app = self._admit(request, caller, user, inside, undo)
            # Before anybody enters: a daemon that is killed meanwhile leaves no cgroup that nobody knows of.
            self._.journal.app(AppRecord(app, self._.registry.class_index(app.app_class)))
            undo.callback(self._.journal.ended, app.id)
            # Entering a cgroup may wait for an RCU grace period, some milliseconds.  With an empty namespace
            # the launch need not: no program hangs on that app's own cgroup, and the end of processes
            # that are born before it is told by their filter (`holder.alive`).
            move = spawn("cgroup", self._enter(app, caller), self._not_entered)
            if request.new_netns and not caller.peer.uid and not inside:
                self._moves[app.id] = move
                move.add_done_callback(lambda _: self._entered(app.id))
            else:
                await move
            if inside:
                undo.callback(self._.holder.remove, app.id)
                await self._.holder.nest(self._inner(app))
            if request.lonely:
                await self._show_address(app, caller)
            undo.pop_all()
        self._watch(app.id, caller.pidfd)
        asyncio.get_running_loop().call_soon(self._log_started, app, request)  # after the reply
        return Started(app, self._.resolv if request.dns_override else "", user)

    async def inject(self, app: App, descriptor: int) -> None:
        """See `launch.Keeper`."""
        await self._.holder.add(app.id, self._.registry.class_index(app.app_class), app.ip, descriptor)

    def died_early(self, app: App) -> None:
        """See `launch.Keeper`; its pidfd tells the rest."""
        self._.log(Event.APP_DIED_EARLY, app=app.id_text, pid=app.pid)

    def adopt(self, records: Iterable[AppRecord]) -> list[AppRecord]:
        """Take over the apps of an earlier daemon that still live; returns them.

        Call it before the tables are restored and the event loop begins to serve, and after the holder
        that still runs was found: it knows whose filters live.
        """
        alive = []
        for record in records:
            app = record.app
            path = self._path(app)
            # Programs that were born before the first process entered the cgroup are outside of it.
            if not self._lives(app) and not self._.holder.alive(app.id):
                self._.kernel.forget(app.id)
                self._leave(app)
                self._.log(Event.APP_ENDED, app=app.id_text, name=app.name)
                continue
            try:
                app = self._.registry.add_app(app, record.class_index)
                self._.kernel.attach(path, app.id, record.class_index, app.ip, flags_of(app))
            except (AppSwitchError, OSError) as error:
                # its old programs bear a class that may be another's next: it reaches nobody
                self._.kernel.forget(app.id)
                self._.log(Event.APP_REFUSED, app=app.id_text, error=error)
                continue
            if app.inside:
                self._.holder.remember(self._inner(app))
            alive.append(AppRecord(app, record.class_index))
            self._waiters.adopt(app)
            self._.log(Event.APP_ADOPTED, app=app.id_text, name=app.name, ip=app.ip, pid=app.pid)
        return alive

    def resume(self) -> None:
        """Watch the adopted apps; the event loop runs, and the pool has ports."""
        self._waiters.resume()
        for app in self._.registry.snapshot.apps:
            if app.id in self._pidfds:
                continue
            if app.attached:
                self._lingering.add(app.id)
                continue
            try:
                descriptor = os.pidfd_open(app.pid)
            except OSError:
                self._lingering.add(app.id)
                continue
            if self._lives_in(app.pid, app.cgroup):
                self._watch(app.id, descriptor)
            else:  # the number is another process's by now
                os.close(descriptor)
                self._lingering.add(app.id)

    def sweep(self) -> None:
        """See whether apps that lingered have ended."""
        for app_id in tuple(self._lingering):
            self._try_end(app_id)
        for path in tuple(self._discarded):
            self._discarded.discard(path)
            self._discard(path)

    def _discard(self, path: Path) -> None:
        """The cgroup of a launch that was refused, now or when the process has left it.

        One that has several launches under way at once is moved back to where another of them has put it.
        """
        if not self._.cgroups.remove(path):
            self._discarded.add(path)

    def close(self) -> None:
        """Stop watching; the apps go on."""
        loop = asyncio.get_running_loop()
        for descriptor in self._pidfds.values():
            loop.remove_reader(descriptor)
            os.close(descriptor)
        for descriptor in self._namespaces.values():
            os.close(descriptor)
        self._pidfds.clear()
        self._namespaces.clear()

    # --- admission

    def _inside(self, caller: Caller) -> int:
        """AppId of the app around the caller whose filter traps its socket(), or 0."""
        try:
            around = self._.registry.app(self._.kernel.owner(caller.probe))
        except NotFound:
            return 0
        return around.inside or (around.id if around.new_netns else 0)

    def _inner(self, app: App) -> InnerApp:
        index = self._.registry.class_index(app.app_class)
        return InnerApp(app.inside, app.id, index, app.ip, app.cgroup)

    def _admit(
        self, request: Request, caller: Caller, user: tuple[int, int] | None, inside: int, undo: ExitStack
    ) -> App:
        """Everything up to a compiled class, each step with its undoing.  Raises AppSwitchError."""
        parts, pid = self._, caller.peer.pid
        app_id, path = self._make_cgroup(pid)
        undo.callback(self._discard, path)
        ip = request.ip or (
            parts.registry.vip(request.name) if request.name else parts.registry.snapshot.node_ip
        )
        app = parts.registry.add_app(
            App(
                id=app_id,
                uid=str(uuid4()),
                app_class=request.app_class,
                ip=ip,
                name=request.name,
                pid=pid,
                user=user[0] if user else caller.peer.uid,
                new_netns=request.new_netns,
                exposes=request.exposes,
                connect_wait=self._waiters.seconds(request.connect_wait),
                nameservers=request.nameservers,
                cgroup="/" + str(path.relative_to(self._root)),
                inside=inside,
            )
        )
        undo.callback(parts.writer.soon)
        undo.callback(parts.registry.remove_app, app_id)
        try:
            self._waiters.add(app)
            undo.callback(self._waiters.remove, app_id)
            parts.kernel.attach(path, app_id, parts.registry.class_index(app.app_class), ip, flags_of(app))
            undo.callback(parts.kernel.forget, app_id)
            for expose in request.exposes:
                parts.kernel.expose(app_id, ip, expose)
        except OSError as error:
            raise Unsupported(f"app {app.id_text}: {error.strerror or error} ({path})") from error
        parts.writer.write()
        return app

    def _resolver(self, request: Request) -> Request:
        """The request, with where its programs will ask for names."""
        asked = request.nameservers if request.dns_override and self._.resolv else ()
        app_class = replace(request.app_class, asks_nameservers=bool(asked))
        return replace(request, nameservers=asked, app_class=app_class)

    def _place(self, request: Request, caller: Caller) -> Request:
        """The request, with what it means where the caller is.  Raises Unavailable, Unsupported, Denied."""
        peer = caller.peer
        try:
            ours = self._.networks.is_ours(peer.pid)
            inject = request.new_netns or not ours
            commands = inject and self._.networks.commands_ours(peer.pid, peer.uid)
        except OSError as error:
            raise Unavailable(f"process {peer.pid} ended during its launch") from error
        if commands:
            raise Denied(
                "CAP_NET_ADMIN without being root of the node: the node's sockets, which the app would get, "
                "would obey it; start the container without NET_ADMIN, or the app with --new-netns=false"
            )
        if ours:
            return replace(request, lonely=False)  # of the node's own lo there is nothing to mend
        if not request.new_netns and not request.lonely:
            raise Unsupported(
                "--new-netns=false: the caller has another network namespace than the node, with a network "
                "of its own: leave the flag out, or adopt the container with: ax attach"
            )
        # A place without a network, such as a container's: the app's sockets must be the node's.
        return replace(request, new_netns=True)

    async def _show_address(self, app: App, caller: Caller) -> None:
        """The app's address on lo of a namespace in which the launcher may not.  Without it only
        getaddrinfo(AI_ADDRCONFIG) suffers: no reason to refuse."""
        try:
            namespace = await asyncio.to_thread(self._.networks.show_address, caller.pidfd, app.ip)
        except OSError as error:
            self._.log(Event.TASK_FAILED, task="address", app=app.id_text, error=error.strerror)
            return
        self._namespaces[app.id] = namespace

    def _hide_address(self, app: App) -> None:
        """Undo `_show_address`, unless another app has the address."""
        if (namespace := self._namespaces.pop(app.id, -1)) < 0:
            return
        if self._.registry.index.has_address(app.ip):
            os.close(namespace)
            return

        def hide() -> None:
            try:
                self._.networks.hide_address(namespace, app.ip)
            except OSError:
                pass  # it has gone with its namespace
            finally:
                os.close(namespace)

        # The kernel's lock of all networks may be taken for long, as while many containers end.
        spawn("address", asyncio.to_thread(hide))

    async def _check_claims(self, request: Request, uid: int) -> Request:
        """The request of an ordinary user's, if it may be made, with an address.  Raises AppSwitchError."""
        try:
            name = (await asyncio.to_thread(pwd.getpwuid, uid)).pw_name
        except KeyError:
            name = ""
        registry, rules = self._.registry, self._.rules
        claims.check(request, uid, claims.owner_names(uid, name), registry, rules)
        return replace(request, ip=claims.address(request, uid, registry, rules))

    def _check_exposes(self, exposes: tuple[Expose, ...], caller: Caller) -> None:
        """Whether these ports of the node may be opened, and are free.  Raises AppSwitchError."""
        if exposes and caller.peer.uid != 0:
            raise Denied("--expose: only root may open ports of the node")
        snapshot = self._.registry.snapshot
        taken = {expose.host_port: app for app in snapshot.apps for expose in app.exposes}
        seen: set[int] = set()
        for expose in exposes:
            port, ip = expose.host_port, expose.host_ip
            # 0.0.0.0 is every node of the cluster, and this one is all of it.
            if ip is not None and int(ip) and ip != snapshot.node_ip and ip not in snapshot.local_ips:
                raise Unsupported(f"--expose: {ip} is not this node; others come with a later release")
            if port in taken:
                raise Conflict(f"--expose: port {port} of the node is exposed by app {taken[port].id_text}")
            if port in seen or expose.port in {other.port for other in exposes if other is not expose}:
                raise InvalidInput(f"--expose: port {port} or {expose.port} is named twice")
            if self._.pooled(port):
                raise Conflict(f"--expose: port {port} of the node is one of --ports; choose another")
            if not is_free(port, waiting=True):
                raise Conflict(f"--expose: port {port} of the node is in use; choose another")
            seen.add(port)

    async def _enter(self, app: App, caller: Caller) -> None:
        """The process moves into its app's cgroup.  Raises Unavailable, Unsupported, Denied."""
        path = self._path(app)

        def move(pidfd: int) -> None:
            try:
                before = self._.cgroups.of_process(app.pid)
                signal.pidfd_send_signal(pidfd, 0)  # next to the move: the number is still its own
                self._.cgroups.move(app.pid, path)
                # In a mesh that an ordinary user made, a setuid program would be served by that user.
                if caller.peer.uid and not self._.cgroups.gains_no_privileges(path):
                    self._.cgroups.move(app.pid, self._root / before.lstrip("/"))
                    raise Denied("the launcher may gain privileges by setuid programs: run it by ax run")
            finally:
                os.close(pidfd)

        try:
            await asyncio.to_thread(move, os.dup(caller.pidfd))
        except (ProcessLookupError, FileNotFoundError) as error:
            raise Unavailable(f"process {app.pid} ended during its launch") from error
        except OSError as error:
            raise Unsupported(f"app {app.id_text}: {error.strerror or error} ({path})") from error

    def _make_cgroup(self, pid: int) -> tuple[int, Path]:
        """A fresh AppId and its cgroup.  Raises Unavailable (the process is gone), Unsupported."""
        for _ in range(8):
            app_id = ID_BASE | secrets.randbits(24)
            try:
                return app_id, self._.cgroups.create(pid, f"{app_id:08x}")
            except FileExistsError:
                continue
            except (FileNotFoundError, ProcessLookupError) as error:
                raise Unavailable(f"process {pid} ended during its launch") from error
            except OSError as error:
                raise Unsupported(f"cannot make a cgroup for the app: {error.strerror or error}") from error
        raise Unsupported("cannot make a cgroup for the app: every name drawn is taken")

    async def _user(self, request: Request, caller: Caller) -> tuple[int, int] | None:
        """uid and gid of `--user`.  Raises InvalidInput, Denied."""
        if not request.user:
            return None
        uid, gid = request.ids or await self._known_user(request.user)
        if caller.peer.uid not in (0, uid):
            raise Denied(f"--user {request.user}: only root may run programs as somebody else")
        return uid, gid

    @staticmethod
    async def _known_user(user: str) -> tuple[int, int]:
        """As the node knows them.  Raises InvalidInput."""
        try:
            # May ask a directory service: off the event loop.
            if user.isascii() and user.isdecimal():
                entry = await asyncio.to_thread(pwd.getpwuid, int(user))
            else:
                entry = await asyncio.to_thread(pwd.getpwnam, user)
        except (KeyError, OverflowError):
            raise InvalidInput(f"--user {user!r}: there is no such user on this node") from None
        return entry.pw_uid, entry.pw_gid

    def _log_started(self, app: App, request: Request) -> None:
        self._.log(
            Event.APP_STARTED,
            app=app.id_text,
            name=app.name,
            ip=app.ip,
            labels=app.app_class.labels,
            pid=app.pid,
            uid=app.user,
            command=request.command[0],
            **({"inherited": request.inherited} if request.inherited else {}),
        )

    # --- the end

    def _watch(self, app_id: int, pidfd: int) -> None:
        self._pidfds[app_id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._exited, app_id)

    def _exited(self, app_id: int) -> None:
        """The app's first process has ended."""
        descriptor = self._pidfds.pop(app_id)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._lingering.add(app_id)
        self._try_end(app_id)

    def hung_up(self, app_id: int) -> None:
        """The last process with the app's filter has ended."""
        if app_id in self._lingering:
            self._try_end(app_id)

    def _entered(self, app_id: int) -> None:
        """The first process is in the cgroup, or will never be."""
        self._moves.pop(app_id, None)
        if app_id in self._lingering:
            self._try_end(app_id)

    def _not_entered(self, _: str, error: BaseException) -> None:
        """It has ended before, mostly; whoever awaits the move hears of it."""
        if not isinstance(error, Unavailable):
            self._.log(Event.TASK_FAILED, task="cgroup", error=error)

    def _try_end(self, app_id: int) -> None:
        app = self._.registry.app(app_id)
        # Only an empty cgroup may be removed: folders that a living child made are its own.
        if app_id in self._pidfds or app_id in self._moves or self._.holder.alive(app_id):
            return
        if self._lives(app) or not self._leave(app):
            return
        self.end(app_id)

    def linger(self, app_id: int) -> None:
        """The app lives as long as somebody is in its cgroup, whatever becomes of its first process."""
        self._lingering.add(app_id)

    def end(self, app_id: int, event: Event = Event.APP_ENDED) -> None:
        """It is no app any more; its cgroup has been seen to."""
        app = self._.registry.app(app_id)
        self._lingering.discard(app_id)
        self._.holder.remove(app_id)
        self._.registry.remove_app(app_id)
        self._hide_address(app)
        self._waiters.remove(app_id)
        self._.freed(self._.kernel.forget(app_id))
        self._.journal.ended(app_id)
        self._.writer.soon()
        self._.log(event, app=app.id_text, name=app.name)

    def _lives(self, app: App) -> bool:
        """Whether somebody is in its cgroup, and that is still the one that was attached."""
        path = self._path(app)
        if app.attached and self._.cgroups.numbers(path)[:1] != [app.cgroup_id]:
            return False
        return self._.cgroups.populated(path)

    def _leave(self, app: App) -> bool:
        """The end of its cgroup, or of our part in it; False while somebody lives there."""
        path = self._path(app)
        if not app.attached:
            return self._.cgroups.remove(path)
        self._.kernel.detach(path)
        return True

    def _lives_in(self, pid: int, cgroup: str) -> bool:
        try:
            return self._.cgroups.of_process(pid).startswith(cgroup)
        except OSError:  # it has just ended
            return False

    def _path(self, app: App) -> Path:
        return self._root / app.cgroup.lstrip("/")


def flags_of(app: App) -> int:
    """`struct app`'s."""
    own = abi.APP_OWN_NETWORK if app.own_ip is not None else 0
    return wait_flags(app) | own | (abi.APP_EMPTY if app.new_netns else 0)
