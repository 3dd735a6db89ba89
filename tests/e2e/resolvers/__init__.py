"""One small program for each kind of resolver, all with one command line and one output.

Arguments are names, or `ptr:ADDRESS`.  One line comes out for each: `ARGUMENT=` and the addresses (or
names) in ascending order between commas, `-` where there are none (no such name, no such record), or `!`
and words for any other failure.  `build.py` makes them.
"""
