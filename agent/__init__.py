"""The daemon and the `ax` command: everything that joins decisions, kernel, names and Istio.

Reading order: `settings.py`, `daemon.py` (the composition root), then what it names.
"""
