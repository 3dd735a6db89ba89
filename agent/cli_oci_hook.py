"""`ax oci-hook`: a hook of an OCI runtime (createRuntime or poststart); annotations attach a container."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from appswitch.agent import oci
from appswitch.agent.cli_args import client, parser
from appswitch.agent.requests import NewApp, attachment
from appswitch.agent.resources import AppView
from appswitch.errors import AppSwitchError, InvalidInput


def main(argv: Sequence[str]) -> int:
    """The container's state is on standard input; one without our annotations is left alone."""
    flags = parser("ax oci-hook", "Attach a container by its annotations: a hook of an OCI runtime (root).")
    flags.add_argument(
        "--fail-open", action="store_true", help="where it cannot be attached, let the container start"
    )
    args = flags.parse_args(argv)
    try:
        _attach(args.run_dir)
    except AppSwitchError as error:
        if not args.fail_open:
            raise
        print(f"ax oci-hook: {error}; the container starts outside of the mesh", file=sys.stderr)
    return 0


def _attach(run_dir: str | None) -> None:
    data = sys.stdin.buffer.read(oci.MAX_STATE + 1)
    if len(data) > oci.MAX_STATE:
        raise InvalidInput(f"state of a container of more than {oci.MAX_STATE} bytes")
    state = oci.decode_state(data)
    if not (wishes := oci.wishes_of(state)):
        return
    request = NewApp(
        target=str(state.pid),
        ip=wishes.get("ip"),
        name=wishes.get("name", ""),
        labels=wishes.get("labels", ""),
        namespace=wishes.get("namespace", ""),
        service_account=wishes.get("service-account", ""),
    )
    attachment(request)
    client(run_dir).post("/v1/apps", request, AppView)
