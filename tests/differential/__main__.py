"""A long differential run: ``python -m tests.differential --instructions 10000000 --seed 1``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.differential.compare import Tally, compare
from tests.differential.table import coverage_table

BATCH = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--instructions", type=int, default=1_000_000, help="generated instructions to run")
    parser.add_argument("--seed", type=int, default=1, help="of the first sequence; each next one counts up")
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences in one run of each machine")
    parser.add_argument("--shrinks", type=int, default=3, help="failures to shrink")
    parser.add_argument("--vectors", action="store_true", help="machines with the vector extension")
    parser.add_argument(
        "--table", action="store_true", help="print every instruction with its number of vectors"
    )
    options = parser.parse_args()
    tally, seed, began = Tally(), options.seed, time.monotonic()
    while tally.instructions < options.instructions:
        compare(seed, options.batch, tally=tally, shrinks=options.shrinks, vectors=options.vectors)
        seed += options.batch
    for failure in tally.failures[: options.shrinks]:
        print(failure.text())
    if options.table:
        print(coverage_table({"jit": tally.vectors, **tally.agreed}))
    print(
        f"seeds {options.seed} to {seed - 1}: {tally.sequences} sequences, {tally.instructions} instructions, "
        f"{tally.traps} traps, {tally.inconclusive.total()} inconclusive, {len(tally.failures)} differences, "
        f"{time.monotonic() - began:.0f} s"
    )
    for why, count in tally.inconclusive.most_common():
        print(f"  inconclusive: {count}: {why}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
