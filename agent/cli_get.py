"""`ax get RESOURCE`: tables of what is alive."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, write
from appswitch.agent.render import FORMATS, KINDS, Kind, render
from appswitch.agent.requests import parse_seconds
from appswitch.errors import Unavailable, UsageError

_SINGULAR = {"policies": "policy", "proxies": "proxy", "xds": "xds"}
_NAMES = ", ".join(kind.name for kind in KINDS)


def main(argv: Sequence[str]) -> int:
    """Print one resource type."""
    flags = parser("ax get", f"Show active resources: {_NAMES}.")
    flags.add_argument(
        "resource", nargs="?", metavar="RESOURCE", help=f"one of {_NAMES}; the singular will do"
    )
    flags.add_argument("-o", "--output", choices=FORMATS, default="table", help="default: table")
    flags.add_argument(
        "--seconds", metavar="N", help="bpf: have the kernel count runs and time for so long, and show those"
    )
    args = flags.parse_args(argv)
    kind = find_kind(args.resource)
    seconds = args.seconds
    if seconds is not None:
        if kind.name != "bpf":
            raise UsageError("--seconds is a flag of: ax get bpf")
        parse_seconds(seconds)
    write(render(kind, _rows(kind, args.run_dir, seconds), args.output))
    return 0


def find_kind(name: str | None) -> Kind:
    """A resource type by its plural or singular."""
    for kind in KINDS:
        if name in (kind.name, _SINGULAR.get(kind.name, kind.name.removesuffix("s"))):
            return kind
    if name is None:
        raise UsageError(f"which resource? one of {_NAMES}")
    raise UsageError(f"unknown resource {name!r}: one of {_NAMES}")


def _rows(kind: Kind, run_dir: str | None, seconds: str | None) -> Sequence[object]:
    daemon = client(run_dir, wait=float(seconds or 0))
    try:
        return daemon.get_all(f"/v1/{kind.name}", kind.view, {"seconds": seconds} if seconds else None)
    except Unavailable as error:
        if kind.name != "drivers":
            raise
        # The question is asked above all where the daemon does not start.
        from appswitch.agent.drivers import probe

        print(f"ax get: {error}; this is what your own rights would allow:", file=sys.stderr)
        return probe()
