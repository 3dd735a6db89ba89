"""Programs' own test suites as oracle: what passes outside `ax run` passes under it, or is explained.

`run.py` is the script; `suites.py` says which suites there are and what of them is left out.  `probe.py` runs
one of CPython's, `processes.py` one whose tests are programs (`libuv.py`, `nodejs.py`; Debian's sources,
fetched by `source.py`); both tell what became of each test.  `drive.py` runs a probe in a place (outside,
the node's own network, an empty namespace); `compare.py` finds the differences and the explained ones
(`explained.toml`), from which the table in docs/differences.md is made.
"""
