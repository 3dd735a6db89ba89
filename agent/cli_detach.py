"""`ax detach APP|CONTAINER|CGROUP|PID`."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser
from appswitch.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Nothing is printed: its programs run on."""
    flags = parser("ax detach", "Let an attached app go; its programs and connections run on (root).")
    flags.add_argument("app", metavar="APP|CONTAINER|CGROUP|PID", help="AppId, name, or what was attached")
    args = flags.parse_args(argv)
    if not args.app:
        raise UsageError("what to detach is empty: name an app, a container, a cgroup or a process id")
    client(args.run_dir).delete("/v1/apps", args.app)
    return 0
