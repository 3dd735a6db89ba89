"""End-to-end tests: the whole product, real programs, on a machine of their own.

`sandbox.py` makes that machine (a network namespace without a route out and a cgroup), `node.py` runs
`ax` in it, `conftest.py` hands both to the tests, `programs/` holds what is run under `ax run`.
The demo and the benchmarks use the same two files.  Nothing here imports the product: it is used as a
user would, by its command and its REST interface.
"""
