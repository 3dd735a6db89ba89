#!/usr/bin/env python3
"""Plays the recorded pushes of a real Istiod for bookinfo, step by step (see README.md beside this file)."""

import sys
from pathlib import Path

from appswitch.xds.replay_cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent / "recording"))
