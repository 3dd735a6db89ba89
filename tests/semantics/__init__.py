"""Does a program see a difference?  Small programs run natively and under `ax run`, line by line compared.

Reading order: `stage.py` (what the programs are written with), `cases/` (the programs), `play.py` (runs one
of them, an unmodified process), `run.py` (runs it natively and inside, and finds what differs),
`explained.toml` (differences that may be; docs/differences.md has them as a table).
"""
