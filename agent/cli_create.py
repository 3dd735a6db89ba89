"""`ax create vservice`: both spellings of the manual."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, wants_help, write
from appswitch.agent.requests import NewExpose, NewPort, NewVService, parse_pair, vservice
from appswitch.agent.resources import VServiceView
from appswitch.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Create a resource; the only kind is a vservice."""
    if wants_help(list(argv)):
        write("Usage: ax create RESOURCE [flags]\n\nResources:\n  vservice  Create a virtual service\n")
        return 0
    if not argv or argv[0] != "vservice":
        raise UsageError(
            f"unknown resource {argv[0]!r}: only vservice" if argv else "which resource? vservice"
        )
    request = parse(argv[1:])
    made = client(request[0]).post("/v1/vservices", request[1], VServiceView)
    write(f"Service '{made.name}' created successfully with IP '{','.join(made.ips)}'.\n")
    return 0


def parse(argv: Sequence[str]) -> tuple[str | None, NewVService]:
    """(run directory, request) of the flags; raises UsageError, InvalidInput before anything is sent."""
    flags = parser("ax create vservice", "Create a virtual service: an IP and ports in front of backends.")
    flags.add_argument("name", nargs="?", help="DNS name, unique")
    flags.add_argument(
        "--ip", metavar="IP", help="IPv4 address for the virtual service (default: made from the name)"
    )
    flags.add_argument("--external", action="store_true", help="comes with a later release")
    flags.add_argument(
        "--lbtype", metavar="TYPE", default="Random", help="Random or RoundRobin (default: Random)"
    )
    flags.add_argument("--backends", metavar="CSV", default="", help="IPv4 addresses, IP or IP:port")
    flags.add_argument("--ports", metavar="CSV", default="", help="VIRTUAL:APPLICATION port pairs")
    flags.add_argument(
        "--expose", metavar="CSV", default="", help="APPLICATION:HOST port pairs, in place of --ports"
    )
    flags.add_argument("--source-ip", metavar="IP", help="this node's address to dial backends outside from")
    args = flags.parse_args(argv)
    if args.external:
        raise UsageError("--external comes with a later release")
    if not args.name:
        raise UsageError(
            "the vservice needs a name: ax create vservice --ip IP --backends CSV --ports V:A NAME"
        )
    ports = [parse_pair(text, "--ports", "VIRTUAL:APPLICATION") for text in _csv(args.ports)]
    exposes = [parse_pair(text, "--expose", "APPLICATION:HOST") for text in _csv(args.expose)]
    request = NewVService(
        name=args.name,
        ip=args.ip,
        backends=_csv(args.backends),
        ports=[NewPort(*pair) for pair in ports],
        expose=[NewExpose(*pair) for pair in exposes],
        lbtype=args.lbtype,
        source_ip=args.source_ip,
    )
    vservice(request)
    return args.run_dir, request


def _csv(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []
