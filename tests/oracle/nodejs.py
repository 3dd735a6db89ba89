"""node's own tests of sockets, from Debian's source, run by the node of this machine (a newer one may be)."""

from __future__ import annotations

import re
import shutil

from oracle import source

PACKAGE = "nodejs"
AREAS = ("cluster", "dgram", "dns", "listen", "net", "pipe", "socket", "tcp")
"""Tests are named test-AREA-….js.  The many of http and tls ask nothing more of a socket."""
_FLAGS = re.compile(r"^// Flags: (.*)$", re.MULTILINE)


def tests() -> dict[str, list[str]]:
    """Each test's name and command.  Raises source.Missing."""
    if not (node := shutil.which("node")):
        raise source.Missing("no node here (Debian: nodejs)")
    folder = (
        source.fetch(PACKAGE, f"test/(common|fixtures|parallel/test-({'|'.join(AREAS)})-|[^/]*$)") / "test"
    )
    found = {}
    for path in sorted((folder / "parallel").glob("test-*.js")):
        flags = _FLAGS.search(path.read_text(errors="replace"))
        found[f"node.{path.stem.removeprefix('test-')}"] = [
            node,
            *(flags[1].split() if flags else ()),
            str(path),
        ]
    return found
