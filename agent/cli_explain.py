"""`ax explain DEST[:PORT]`: what an app gets for a destination, and why."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, write
from appswitch.agent.render import readable
from appswitch.agent.requests import decode_explain
from appswitch.agent.resources import Explanation


def main(argv: Sequence[str]) -> int:
    """Print the daemon's answer."""
    flags = parser("ax explain", "Say what an application gets for a destination, and why.")
    flags.add_argument("destination", metavar="DEST[:PORT]", help="IP or name; the port defaults to 80")
    who = flags.add_mutually_exclusive_group()
    who.add_argument("--from", dest="app", metavar="APP", help="AppId or name of the application that dials")
    who.add_argument("--labels", metavar="CSV", help="or only its labels (default: zone=default)")
    args = flags.parse_args(argv)
    query = {"destination": args.destination, "from": args.app, "labels": args.labels}
    given = {name: value for name, value in query.items() if value is not None}
    decode_explain(given)
    answer = client(args.run_dir).get("/v1/explain", Explanation, given)
    write("".join(f"{readable(line)}\n" for line in answer.lines))
    return 0
