"""Fuzzing of every decoder of bytes from outside: whatever comes, it is taken or is the documented error.

`run.py` is the script (a million inputs each); `decoders.py` lists the decoders with seeds and what they may
raise; `mutate.py` makes an input out of the seeds, by bytes and by the structure of its format.
"""
