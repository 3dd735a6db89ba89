"""The holder's loop: one thread answers all apps, and is replaced when an app holds it up.

Giving a descriptor waits until the caller's thread has run (a fraction of a microsecond of its time).  A
caller that gets no CPU, by a quota, a real-time neighbour or a debugger, would hold up everybody: so after
`TICK` the thread that waits is left behind with that one app, and another thread goes on with the rest.

Two steps (give, then answer) rather than ADDFD_FLAG_SEND: that one answers 0, standard input, when the
holder is killed or stopped within it (docs/decisions).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Callable
from fcntl import ioctl
from typing import Final, Protocol

from appswitch.interceptor import inject_flight as flight
from appswitch.interceptor import seccomp
from appswitch.interceptor.inject_flight import Flight
from appswitch.interceptor.inject_stock import HeldApp, Kind, Maker, Owner

TICK: Final = 0.01
"""Seconds a call may take before its thread is left behind."""


class Control(Protocol):
    """Descriptors beside the apps' that the loop watches."""

    def ready(self, fd: int, events: int) -> None:
        """`fd` is readable or gone."""


class Seat:
    """What one thread works with: its slot of the memfd and its buffers."""

    __slots__ = ("address", "app", "call", "gift", "index", "left_with", "reply", "slot")

    def __init__(self, index: int, slot: memoryview) -> None:
        self.index = index
        self.slot = slot
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(slot))
        self.gift = bytearray(seccomp.ADDFD.size)
        self.reply = bytearray(seccomp.RESPONSE.size)
        self.app: HeldApp | None = None
        """Whose call is being answered."""
        self.call = 0
        """Number of the call, so that the watch knows one from the next."""
        self.left_with: HeldApp | None = None
        """The app whose call this thread was left behind in."""


class Loop:
    """Owns the apps, the epoll descriptor and the memfd.  Methods are for its own thread unless marked."""

    def __init__(self, maker: Maker, wake_watch: Callable[[], None], log: Callable[..., None]) -> None:
        self.apps: dict[int, HeldApp] = {}
        self.flight = Flight.create()
        self.controls: dict[int, Control] = {}
        self.watch_sleeps = False
        """Set by the watch before it sleeps without a deadline; the next call wakes it."""
        self._maker = maker
        self._wake_watch = wake_watch
        self._log = log
        self._by_fd: dict[int, HeldApp] = {}
        self._epoll = select.epoll()
        self._free = list(range(flight.SLOTS - 1, 0, -1))
        self._early: dict[int, dict[str, Owner]] = {}
        """Apps inside others that are told of before these: the first call must be answered right."""
        self._adopted: list[tuple[HeldApp, int, int]] = []
        """Calls taken over from a dead holder: app, slot, descriptor given already."""
        self._turn = threading.Lock()
        """Held to end a call, and to leave a thread behind in one."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._stopping = False
        self.seat = self._take_seat()

    # -- the watch's side (another thread) -------------------------------------------------------------

    def stop(self) -> None:
        """Any thread: ends the loop after the call in hand."""
        self._stopping = True
        os.eventfd_write(self._stop, 1)

    def replace(self, seat: Seat, call: int) -> bool:
        """The watch: leaves the thread of `seat` behind in `call`.  False: it is over, or no slot free."""
        with self._turn:
            app = seat.app
            if app is None or seat.call != call or not self._free:
                return False
            seat.left_with = app
            app.busy = True
            if self._by_fd.get(app.fd) is app:
                self._epoll.unregister(app.fd)  # the next thread must not run into the same app
            self.seat = self._take_seat()
            return True

    # -- control's side --------------------------------------------------------------------------------

    def watch(self, fd: int, control: Control) -> None:
        """Calls control.ready when `fd` is readable."""
        self.controls[fd] = control
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed."""
        del self.controls[fd]
        self._epoll.unregister(fd)

    def add(self, app: HeldApp) -> None:
        """Takes the app over, with its descriptor; replaces one of the same id.  Raises OSError."""
        ioctl_quietly(app.fd, seccomp.NOTIF_SET_FLAGS, seccomp.FD_SYNC_WAKE_UP)
        if app.id in self.apps:
            self.forget(self.apps[app.id])
        app.inner = self._early.pop(app.id, app.inner)
        self._epoll.register(app.fd, select.EPOLLIN)
        self.apps[app.id] = self._by_fd[app.fd] = app

    def forget(self, app: HeldApp) -> None:
        """Closes all that is held for the app."""
        del self.apps[app.id], self._by_fd[app.fd]
        if app.busy:
            app.gone = True  # its thread still uses the number
            return
        # Others have copies of the descriptor, so that closing ours would not end the registration.
        self._epoll.unregister(app.fd)
        app.close()

    def nest(self, filter_id: int, path: str, owner: Owner) -> None:
        """Who calls from the cgroup `path` under that filter is `owner`; its app may come later."""
        self.unnest(owner.id)
        app = self.apps.get(filter_id)
        (app.inner if app is not None else self._early.setdefault(filter_id, {}))[path] = owner

    def unnest(self, app_id: int) -> bool:
        """An app inside another has ended.  False: there is none of this id."""
        for inner in (*(app.inner for app in self.apps.values()), *self._early.values()):
            for path, owner in inner.items():
                if owner.id == app_id:
                    del inner[path]
                    owner.close_ready()
                    return True
        return False

    def adopt(self, dead: Flight) -> int:
        """Takes over what a dead holder had received, to be answered next.  Returns how many there are."""
        for lost in dead.lost():
            app = self.apps.get(lost.app)
            if app is not None and self._free:
                index = self._free.pop()
                with self.flight.slot(index) as slot:  # so that our own successor finds them too
                    slot[:] = lost.slot
                self._adopted.append((app, index, lost.given))
            flight.clear(lost.slot, 0)
        return len(self._adopted)

    # -- the loop --------------------------------------------------------------------------------------

    def run(self, seat: Seat) -> None:
        """Until stop(), or until this thread is left behind."""
        poll, by_fd = self._epoll.poll, self._by_fd
        while not self._stopping:
            for fd, events in poll():
                app = by_fd.get(fd)
                if app is None:
                    if (control := self.controls.get(fd)) is not None:
                        control.ready(fd, events)
                elif events & select.EPOLLIN:
                    self._serve(seat, app)
                    if seat.left_with is not None:
                        break
                else:  # EPOLLHUP: nobody is left under the filter
                    self.forget(app)
            while self._adopted and seat.left_with is None:
                self._serve_adopted(seat, *self._adopted.pop())
            if seat.left_with is not None:
                self._leave(seat, seat.left_with)
                return

    def _serve(self, seat: Seat, app: HeldApp) -> None:
        slot = seat.slot
        flight.clear(slot, app.id)
        # The watch looks from here on: an app that kept its own copy of the descriptor may have taken the
        # call first, and then RECV waits.
        self._begin(seat, app)
        try:
            seccomp.receive(app.fd, seat.address)
        except OSError as error:
            self._end(seat)
            # ENOENT: the caller got a signal and will come again
            if error.errno not in (errno.ENOENT, errno.EINTR):
                self._log("holder-call-failed", app=f"{app.id:08x}", error=str(error))
                self.forget(app)
            return
        likely = self._answer(seat, app, slot, -1)
        slot[:8] = bytes(8)
        if likely is not None and seat.left_with is None:
            self._maker.restock(*likely)

    def _serve_adopted(self, seat: Seat, app: HeldApp, index: int, given: int) -> None:
        with self.flight.slot(index) as slot:
            if self.apps.get(app.id) is app:
                self._begin(seat, app)
                self._answer(seat, app, slot, given)
            flight.clear(slot, 0)
        self._free.append(index)

    def _answer(self, seat: Seat, app: HeldApp, slot: memoryview, given: int) -> tuple[Owner, Kind] | None:
        """Gives a socket and answers.  What may be asked for next, None after an error."""
        call, thread, _, number, _, _, domain, how, protocol = seccomp.NOTIF_CALL.unpack_from(slot)
        kind = domain, how, protocol
        owner: Owner = app
        try:
            if given < 0:
                if number != seccomp.SYS_SOCKET:
                    raise OSError(errno.ENOSYS, "only socket() is answered here")
                owner = self._caller(app, call, thread)
                given = self._give(seat, app, owner, call, kind)
                flight.note_given(slot, given)
            seccomp.RESPONSE.pack_into(seat.reply, 0, call, given, 0, 0)
            ioctl(app.fd, seccomp.NOTIF_SEND, seat.reply, True)
            return owner, kind
        except OSError as error:
            if error.errno != errno.ENOENT:  # ENOENT: the caller is dead
                seccomp.RESPONSE.pack_into(seat.reply, 0, call, 0, -(error.errno or errno.EIO), 0)
                ioctl_quietly(app.fd, seccomp.NOTIF_SEND, seat.reply)
            return None
        finally:
            self._end(seat)

    def _begin(self, seat: Seat, app: HeldApp) -> None:
        """The thread of `seat` may wait for `app` from now on."""
        seat.call += 1
        seat.app = app
        if self.watch_sleeps:
            self.watch_sleeps = False
            self._wake_watch()

    def _end(self, seat: Seat) -> None:
        with self._turn:
            seat.app = None

    def _caller(self, app: HeldApp, call: int, thread: int) -> Owner:
        """Whose call it is.  Raises OSError; ENOENT: the caller is dead."""
        if not app.inner:
            return app
        try:
            owner = app.caller(thread)
        except OSError:
            owner = None
        # /proc may have told of a later process of the same id: it counts if the caller still waits.
        ioctl(app.fd, seccomp.NOTIF_ID_VALID, struct.pack("=Q", call))
        if owner is None:
            raise OSError(errno.EACCES, f"the cgroup of thread {thread} cannot be read")
        return owner

    def _give(self, seat: Seat, app: HeldApp, owner: Owner, call: int, kind: Kind) -> int:
        """Puts a socket into the caller's table; its number there.  Raises OSError: ours or the caller's."""
        fd = owner.ready.pop(kind, -1)
        if fd < 0:
            fd = self._maker.make_at_any_price(owner, kind, list(self.apps.values()))
        try:
            seccomp.ADDFD.pack_into(seat.gift, 0, call, 0, fd, 0, kind[1] & os.O_CLOEXEC)
            return int(ioctl(app.fd, seccomp.NOTIF_ADDFD, seat.gift, True))
        finally:
            # Before the answer: the app's close() shall be the last one.
            os.close(fd)

    def _leave(self, seat: Seat, app: HeldApp) -> None:
        """The end of a thread that was left behind, once its call is over."""
        app.busy = False
        if app.gone:
            app.close()
        else:
            self._epoll.register(app.fd, select.EPOLLIN)
        seat.slot.release()
        self._free.append(seat.index)

    def _take_seat(self) -> Seat:
        index = self._free.pop()
        return Seat(index, self.flight.slot(index))


def ioctl_quietly(fd: int, request: int, argument: int | bytearray) -> None:
    """An ioctl that may fail: an old kernel, a caller that has died."""
    try:
        ioctl(fd, request, argument)
    except OSError:
        return


def start(loop: Loop, seat: Seat, crashed: Callable[[BaseException], None]) -> threading.Thread:
    """Runs the loop in a thread of its own, for which the caller has blocked all signals."""

    def body() -> None:
        try:
            loop.run(seat)
        except Exception as error:  # noqa: BLE001  the task's outer edge
            crashed(error)

    thread = threading.Thread(target=body, name=f"loop-{seat.index}", daemon=True)
    thread.start()
    return thread
