"""Clients with one fault each: what a case of the conformance suite must see.

As a program it is a subject of `ax conformance`.  Arguments: CASE, then those of `xds/conformance/own.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out

from xds_mutants_more import MORE_MUTANTS
from xds_mutants_sotw import SOTW_MUTANTS

from appswitch.xds.conformance.own import main

MUTANTS = SOTW_MUTANTS | MORE_MUTANTS
"""By case."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], MUTANTS[sys.argv[1]]))
