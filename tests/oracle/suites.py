"""The suites that live on sockets, and what of them is left out, with the reason."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oracle import libuv, nodejs, source

PACKAGE = f"libpython{sys.version_info.major}.{sys.version_info.minor}-testsuite"
"""Where Debian keeps the `test` package (other builds of Python have it with the interpreter)."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """One suite; CPython's are modules of the `test` package."""

    name: str
    skip: tuple[str, ...] = ()
    """Patterns of tests that say nothing about sockets and take long."""
    resources: tuple[str, ...] = ()
    """As of `python -m test -u`: by default nothing that burns, or wants the world's network."""
    short: tuple[str, ...] = ("*",)
    """Patterns of the tests that the short form runs."""
    programs: Callable[[], dict[str, list[str]]] | None = None
    """Each test and its command, where tests are programs of their own."""
    skipped: str = "\0"
    """What such a test prints when it skips itself."""

    def probe(self, folder: Path) -> list[str]:
        """The script that runs the tests, and what they are.  Raises source.Missing."""
        if self.programs is None:
            return [str(HERE / "probe.py"), f"test.{self.name}"]
        plan = folder / f"{self.name}.plan"
        if not plan.exists():
            scratch = folder / f"{self.name}.scratch"
            scratch.mkdir()
            scratch.chmod(0o777)  # some tests run as nobody
            told = {"tests": self.programs(), "cwd": str(scratch), "seconds": SECONDS, "skip": self.skipped}
            plan.write_text(json.dumps(told))
        return [str(HERE / "processes.py"), str(plan)]

    def missing(self) -> str:
        """Why it cannot run here, or nothing."""
        if self.programs is None:
            found = importlib.util.find_spec("test.test_socket")
            return "" if found else f"this Python has no `test` package (Debian: {PACKAGE})"
        try:
            self.programs()
        except source.Missing as error:
            return str(error)
        return ""


LIBUV_SKIP = ("libuv.fs_*", "libuv.thread*", "libuv.platform_output")
SECONDS = 40
"""That a test that is a program may take."""

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "test_socket",
            skip=("*VSOCK*",),  # the virtual machine's own sockets: they hang where there is no host
            short=(
                "*.BasicTCPTest*",
                "*.BasicUDPTest.*",
                "*.CreateServer*",
                "*.GeneralModuleTests.*",
                "*.NetworkConnection[AN]*",
                "*.NonBlockingTCPTests.*",
                "*.Recvmsg*UDP6Test.*",
                "*.RecvmsgUDPTest.*",
                "*.Sendmsg*UDP*Test.*",
                "*.[IU]*TimeoutTest.*",
            ),
        ),
        Suite("test_socketserver", resources=("network",)),
        Suite("test_asyncio"),
        Suite("test_ssl"),
        Suite("test_httplib"),
        Suite("test_ftplib"),
        Suite(
            "libuv",
            programs=libuv.tests,
            skipped="# SKIP",
            skip=LIBUV_SKIP,
            short=("*.tcp_[abc]*", "*.udp_[a-o]*"),
        ),
        Suite(
            "node",
            programs=nodejs.tests,
            skipped="1..0 # Skipped",
            short=("*.net-connect-*", "*.dgram-connect*"),
        ),
    )
}
