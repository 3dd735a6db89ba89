"""Kills, stops and exhaustion, by chance, under load: no call of an application may fail.

`python tests/chaos/chaos.py --seconds 600 --seed 1` (root) runs the long form; `test_chaos.py` the short one.
`world.py` is the node and its applications, `actions.py` what is done to them, `caller.py` an application.
"""
