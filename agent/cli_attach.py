"""`ax attach CONTAINER|CGROUP|PID`: an app of what runs already."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.agent.cli_args import client, parser, write
from appswitch.agent.requests import NewApp, attachment
from appswitch.agent.resources import AppView
from appswitch.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Print the AppId, as scripts want it."""
    flags = parser("ax attach", "Make an app of a container, pod or process that runs already (root).")
    flags.add_argument("target", metavar="CONTAINER|CGROUP|PID", help="what to attach")
    flags.add_argument("--ip", metavar="IP", help="virtual address (default: by the name, or its own)")
    flags.add_argument("--name", default="", metavar="NAME", help="DNS name")
    flags.add_argument("--labels", default="", metavar="CSV", help="KEY=VALUE pairs (default: zone=default)")
    flags.add_argument("--namespace", default="", metavar="NS", help="Kubernetes namespace it speaks for")
    flags.add_argument("--service-account", default="", metavar="SA", help="service account it speaks for")
    args = flags.parse_args(argv)
    if not args.target:
        raise UsageError("what to attach is empty: name a container, a cgroup or a process id")
    request = NewApp(
        target=args.target,
        ip=args.ip,
        name=args.name,
        labels=args.labels,
        namespace=args.namespace,
        service_account=args.service_account,
    )
    attachment(request)
    made = client(args.run_dir).post("/v1/apps", request, AppView)
    write(f"{made.appid}\n")
    return 0
