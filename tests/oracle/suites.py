"""CPython's suites that live on sockets, and what of them is left out, with the reason."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass

PACKAGE = f"libpython{sys.version_info.major}.{sys.version_info.minor}-testsuite"
"""Where Debian keeps the `test` package (other builds of Python have it with the interpreter)."""


@dataclass(frozen=True)
class Suite:
    """One module of the `test` package."""

    name: str
    skip: tuple[str, ...] = ()
    """Patterns of tests that say nothing about sockets and take long."""
    resources: tuple[str, ...] = ()
    """As of `python -m test -u`: by default nothing that burns, or wants the world's network."""
    short: tuple[str, ...] = ("*",)
    """Patterns of the tests that the short form runs."""

    @property
    def module(self) -> str:
        """To be imported."""
        return f"test.{self.name}"


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
    )
}


def missing() -> str:
    """Why the suites cannot run here, or nothing."""
    if importlib.util.find_spec("test.test_socket"):
        return ""
    return f"this Python has no `test` package (Debian: {PACKAGE})"
