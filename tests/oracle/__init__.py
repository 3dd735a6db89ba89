"""Programs' own test suites as oracle: what passes outside `ax run` passes under it, or is explained.

`run.py` is the script; `probe.py` runs one suite of CPython's and tells what became of each test;
`suites.py` says which suites and what of them is left out; `drive.py` runs a probe in a place (outside,
the node's own network, an empty namespace); `compare.py` finds the differences and the explained ones
(`explained.toml`), from which the table in docs/differences.md is made.
"""
