"""`ax get RESOURCE`: tables of what is alive."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, write
from appswitch.agent.client import Client
from appswitch.agent.render import FORMATS, KINDS, Kind, render
from appswitch.errors import Unavailable, UsageError

_SINGULAR = {"proxies": "proxy"}
_NAMES = ", ".join(kind.name for kind in KINDS)


def main(argv: Sequence[str]) -> int:
    """Print one resource type."""
    flags = parser("ax get", f"Show active resources: {_NAMES}.")
    flags.add_argument(
        "resource", nargs="?", metavar="RESOURCE", help=f"one of {_NAMES}; the singular will do"
    )
    flags.add_argument("-o", "--output", choices=FORMATS, default="table", help="default: table")
    args = flags.parse_args(argv)
    kind = find_kind(args.resource)
    write(render(kind, _rows(kind, client(args.run_dir)), args.output))
    return 0


def find_kind(name: str | None) -> Kind:
    """A resource type by its plural or singular."""
    for kind in KINDS:
        if name in (kind.name, _SINGULAR.get(kind.name, kind.name.removesuffix("s"))):
            return kind
    if name is None:
        raise UsageError(f"which resource? one of {_NAMES}")
    raise UsageError(f"unknown resource {name!r}: one of {_NAMES}")


def _rows(kind: Kind, daemon: Client) -> Sequence[object]:
    try:
        return daemon.get_all(f"/v1/{kind.name}", kind.view)
    except Unavailable as error:
        if kind.name != "drivers":
            raise
        # The question is asked above all where the daemon does not start.
        from appswitch.agent.drivers import probe

        print(f"ax get: {error}; this is what your own rights would allow:", file=sys.stderr)
        return probe()
