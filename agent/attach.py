"""`ax attach` and `ax detach`: an app whose cgroup exists already, and whose programs run already.

Nothing in the container changes.  With a network namespace of its own it is a pod: only what it dials is
decided, and who dials it admitted.  In the node's own network it is an app like any other from then on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from appswitch.agent import containers
from appswitch.agent.journal import AppRecord
from appswitch.agent.lifecycle import ID_BASE, Apps, Parts, flags_of
from appswitch.agent.logs import Event
from appswitch.agent.requests import Attachment
from appswitch.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported, UsageError
from appswitch.interceptor import netns, sock_diag
from appswitch.model import App


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the target is, as a value so that tests can put another in its place.  All of it blocks."""

    find: Callable[[str, Path], Path] = containers.find
    pod_of: Callable[[int], netns.Pod | None] = netns.pod_of
    space: Callable[[int], int] = netns.number
    listeners: Callable[[int, Collection[int]], list[sock_diag.Listener]] = sock_diag.listeners_of


class Attachments:
    """Makes apps of cgroups, and lets them go."""

    def __init__(self, parts: Parts, apps: Apps, around: Surroundings | None = None) -> None:
        self._ = parts
        self._apps = apps
        self._around = around or Surroundings()
        self._root = parts.cgroups.cgroup_root()
        self._one = asyncio.Lock()

    async def attach(self, wanted: Attachment) -> App:
        """When this returns, policy holds for what is dialled next.  Raises AppSwitchError."""
        async with self._one:  # what one looks at, another must not change
            path, pid, pod = await asyncio.to_thread(self._look, wanted.target)
            app = self._admit(wanted, path, pid, pod)
            await self._take_listeners(app, path, pid, pod)
        self._.log(
            Event.APP_ATTACHED,
            app=app.id_text,
            name=app.name,
            ip=app.ip,
            labels=app.app_class.labels,
            pid=pid,
            target=app.cgroup,
        )
        return app

    async def detach(self, which: str) -> App:
        """Connections that exist go on.  `which`: AppId, name, or a target.  Raises NotFound, Conflict."""
        app = self._named(which)
        if app is None:
            try:
                path = await asyncio.to_thread(self._around.find, which, self._root)
            except (NotFound, InvalidInput):  # its words are for those who attach
                raise NotFound(f"{which!r} is no app (see: ax get apps)") from None
            app = next((each for each in self._all() if self._root / each.cgroup.lstrip("/") == path), None)
        if app is None:
            raise NotFound(f"{which!r} is no app (see: ax get apps)")
        if not app.attached:
            raise Conflict(f"{which}: app {app.id_text} was not attached: it ends with its program")
        self._.kernel.detach(self._root / app.cgroup.lstrip("/"))
        self._apps.end(app.id, Event.APP_DETACHED)
        return app

    # --- inside

    def _all(self) -> tuple[App, ...]:
        return self._.registry.snapshot.apps

    def _named(self, which: str) -> App | None:
        for app in self._all():
            if which == app.id_text or (which and which == app.name and app.attached):
                return app
        return None

    def _look(self, target: str) -> tuple[Path, int, netns.Pod | None]:
        """The cgroup, a process in it, its network.  Raises AppSwitchError."""
        path = self._around.find(target, self._root)
        self._check(path, target)
        spaces: dict[int, int] = {}
        for pid in self._.cgroups.pids(path):
            try:
                spaces.setdefault(self._around.space(pid), pid)
            except OSError:  # it has just ended, or is a zombie
                continue
        if not spaces:
            raise NotFound(f"{target}: no process lives in the cgroup /{path.relative_to(self._root)}")
        if len(spaces) > 1:
            pids = ", ".join(str(pid) for pid in sorted(spaces.values())[:4])
            raise Conflict(
                f"{target}: the cgroup /{path.relative_to(self._root)} has processes in {len(spaces)} network"
                f" namespaces (processes {pids}); attach a cgroup below it, by its path"
            )
        pid = next(iter(spaces.values()))
        try:
            return path, pid, self._around.pod_of(pid)
        except OSError as error:
            raise Unavailable(f"{target}: {error.strerror or error}") from error

    def _check(self, path: Path, target: str) -> None:
        """Whether this cgroup may become an app.  Raises UsageError, Conflict."""
        where = f"the cgroup /{path.relative_to(self._root)}"
        if path == self._root:
            raise UsageError(f"{target} is in the root cgroup, which is everybody's; name another cgroup")
        own = self._root / self._.cgroups.of_process(os.getpid()).lstrip("/")
        if own == path or own.is_relative_to(path):
            raise Conflict(f"{target}: the daemon itself is in {where}")
        for app in self._all():
            other = self._root / app.cgroup.lstrip("/")
            if other == path:
                raise Conflict(f"{target} is app {app.id_text} already (ax detach {app.id_text} lets it go)")
            if other.is_relative_to(path):
                raise Conflict(f"{target}: app {app.id_text} is in {where}")
            if path.is_relative_to(other):
                raise Conflict(f"{target} is part of app {app.id_text}")

    def _admit(self, wanted: Attachment, path: Path, pid: int, pod: netns.Pod | None) -> App:
        """Everything up to programs that decide, each step with its undoing.  Raises AppSwitchError."""
        parts = self._
        self._check(path, wanted.target)
        ip = wanted.ip or (parts.registry.vip(wanted.name) if wanted.name else None)
        with ExitStack() as undo:
            app = parts.registry.add_app(
                App(
                    id=ID_BASE | secrets.randbits(24),
                    uid=str(uuid4()),
                    app_class=wanted.app_class,
                    ip=ip or (pod.address if pod else parts.registry.snapshot.node_ip),
                    name=wanted.name,
                    pid=pid,
                    new_netns=False,
                    cgroup="/" + str(path.relative_to(self._root)),
                    attached=True,
                    cgroup_id=parts.cgroups.numbers(path)[0],
                    own_ip=pod.address if pod else None,
                )
            )
            undo.callback(parts.writer.soon)
            undo.callback(parts.registry.remove_app, app.id)
            index = parts.registry.class_index(app.app_class)
            parts.journal.app(AppRecord(app, index))
            undo.callback(parts.journal.ended, app.id)
            parts.writer.write()
            undo.callback(parts.kernel.forget, app.id)
            undo.callback(parts.kernel.detach, path)
            try:
                if pod is not None:
                    parts.kernel.set_pod(app.id, pod)
                parts.kernel.attach(path, app.id, index, app.ip, flags_of(app))
            except OSError as error:
                raise Unsupported(f"{wanted.target}: {error.strerror or error}") from error
            undo.pop_all()
        self._apps.linger(app.id)
        return app

    async def _take_listeners(self, app: App, path: Path, pid: int, pod: netns.Pod | None) -> None:
        """Sockets that listened before; what cannot be found out costs nobody else anything."""
        try:
            numbers = await asyncio.to_thread(self._.cgroups.numbers, path)
            found = await asyncio.to_thread(self._around.listeners, pid, numbers)
            for listener in found:
                self._.kernel.adopt_listener(app.id, app.ip, listener, pod)
        except OSError as error:
            text = "sockets that listen already were not found"
            self._.log(Event.NOTE, text=text, app=app.id_text, error=error.strerror or error)
        self._.listening()
