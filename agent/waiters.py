"""The apps with connect-wait: while there are any, a program is attached to the node's network."""

from __future__ import annotations

from appswitch.agent.logs import Event, Log
from appswitch.agent.seams import KernelDriver
from appswitch.errors import AppSwitchError
from appswitch.interceptor import abi
from appswitch.model import App


def wait_flags(app: App) -> int:
    """The app's wait, as the programs read it."""
    return round(app.connect_wait * 10) << abi.APP_WAIT_SHIFT


class Waiters:
    """Which apps there are, and the program's coming and going."""

    def __init__(self, kernel: KernelDriver, log: Log, default: float) -> None:
        """`default`: seconds that the daemon's setting gives to apps that do not say."""
        self._kernel = kernel
        self._log = log
        self._default = default
        self._apps: set[int] = set()

    def seconds(self, asked: float | None) -> float:
        """How long an app waits that asked for this."""
        return self._default if asked is None else asked

    def adopt(self, app: App) -> None:
        """An app of an earlier daemon: `resume` follows."""
        if app.connect_wait:
            self._apps.add(app.id)

    def resume(self) -> None:
        """The pool has ports: attach our program in place of an earlier daemon's, or take that away."""
        try:
            self._kernel.waiting.start() if self._apps else self._kernel.waiting.stop()
        except (AppSwitchError, OSError) as error:
            self._log(Event.TASK_FAILED, task="connect-wait", error=error)

    def add(self, app: App) -> None:
        """An app, before it runs.  Raises Exhausted, OSError: it is not counted."""
        if not app.connect_wait:
            return
        if not self._apps:
            self._kernel.waiting.start()
        self._apps.add(app.id)

    def remove(self, app_id: int) -> None:
        """An app that ended, waiting or not."""
        if app_id in self._apps:
            self._apps.discard(app_id)
            if not self._apps:
                self.resume()
