"""`ax delete vservice NAME`, also spelled `ax del`."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, write
from appswitch.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Delete a resource; the only kind is a vservice."""
    flags = parser("ax delete", "Delete a resource: vservice.")
    flags.add_argument("resource", metavar="RESOURCE", help="vservice")
    flags.add_argument("name", metavar="NAME", help="as `ax get vservices` shows it")
    args = flags.parse_args(argv)
    if args.resource != "vservice":
        raise UsageError(f"unknown resource {args.resource!r}: only vservice")
    if not args.name:
        raise UsageError("the name is empty")
    client(args.run_dir).delete("/v1/vservices", args.name)
    write(f"Service '{args.name}' deleted successfully.\n")
    return 0
