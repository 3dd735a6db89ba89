"""Runs the cases of one module: play.py MODULE SIDE STYLE REPORT [LINK] ; SIDE is one, server or client.

The report gets one line of JSON for each case.  An unmodified program, under `ax run` or not.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out

import stage  # type: ignore[import-not-found,unused-ignore]


def main(module: str, side: str, style: str, report: str, path: str = "") -> None:
    """All cases of the module that this side has."""
    stage.BLOCKING = style == "blocking"
    names = sorted(path.stem for path in Path(__file__).with_name("cases").glob("*.py"))
    # each run its own: connections of the one before may be in TIME_WAIT
    stage.FIRST_PORT = 8000 + 1000 * names.index(module) + 500 * stage.BLOCKING
    importlib.import_module(f"cases.{module}")
    link = stage.Link(path, side == "server") if side != "one" else None
    with open(report, "w") as out:
        for name, case in stage.cases.items():
            if isinstance(case, type) != (side != "one"):
                continue
            if link:
                link.begin(name)
            print(json.dumps([name, stage.perform(name, side, link)]), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
