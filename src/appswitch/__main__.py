"""`python -m appswitch`: every sub-command of `ax` but `run`, which is the launcher's."""

import sys

from appswitch.agent.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
