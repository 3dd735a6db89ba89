"""`ax daemon`: from the command line to a running daemon, and every start-up error to one line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from appswitch.agent.daemon import run
from appswitch.agent.logs import open_log
from appswitch.agent.profiling import kept, profiled
from appswitch.agent.settings_load import HelpWanted, load
from appswitch.agent.supervisor import Supervisor
from appswitch.errors import AppSwitchError


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; the exit code is that of `errors.py`."""
    try:
        supervisor = Supervisor.from_environment(os.environ)
        settings = load(argv, os.environ)
        log = open_log(settings.log_file)
        try:
            with profiled(settings.profile.cpu, settings.profile.memory) as profile:
                asyncio.run(kept(profile, run(settings, log, supervisor)))
        finally:
            log.close()
    except HelpWanted as wanted:
        print(wanted)
        return 0
    except AppSwitchError as error:
        print(f"ax daemon: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"ax daemon: {error}", file=sys.stderr)
        return 71
    except KeyboardInterrupt:  # before the loop took the signal over
        return 130
    return 0
