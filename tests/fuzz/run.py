"""A million inputs for each decoder: python tests/fuzz/run.py [--decoder NAME] [--count N] [--seed N].

Prints how many were taken and refused, and each fault once, with its input; exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.decoders import DECODERS, Decoder

MOST = 10
"""Faults shown of one decoder."""


@dataclass
class Tally:
    """What became of the inputs of one decoder."""

    taken: int = 0
    refused: int = 0
    faults: dict[str, bytes] = field(default_factory=dict)
    """By kind and place: the first input that showed it."""


def inputs(decoder: Decoder, count: int, seed: int) -> Iterator[bytes]:
    """The seeds as they are, then `count` mutations."""
    random, seeds = Random(seed), decoder.seeds()
    assert seeds and all(isinstance(each, bytes) for each in seeds)
    yield from seeds
    for _ in range(count):
        yield decoder.mutate(random, seeds)


def fuzz(decoder: Decoder, count: int, seed: int) -> Tally:
    """Decodes them all."""
    tally = Tally()
    for data in inputs(decoder, count, seed):
        try:
            decoder.decode(data)
            tally.taken += 1
        except decoder.raises:
            tally.refused += 1
        except Exception as error:  # noqa: BLE001  any other is what we look for
            place = traceback.extract_tb(error.__traceback__)[-1]
            tally.faults.setdefault(
                f"{type(error).__name__} at {place.name}:{place.lineno}: {error}"[:200], data
            )
            if len(tally.faults) >= MOST:
                break
    return tally


def main() -> int:
    """The script; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--decoder", action="append", choices=list(DECODERS), help="only this one")
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("error")
    faults = 0
    for name in args.decoder or DECODERS:
        began = time.monotonic()
        tally = fuzz(DECODERS[name], args.count, args.seed)
        seconds = time.monotonic() - began
        print(f"{name:15} {tally.taken:8} taken {tally.refused:8} refused {seconds:6.0f} s", flush=True)
        for what, data in tally.faults.items():
            print(f"  FAULT {what}\n    {data!r}", flush=True)
        faults += len(tally.faults)
    print(f"faults: {faults}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
