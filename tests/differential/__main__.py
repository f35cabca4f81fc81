"""A long differential run: ``python -m tests.differential --instructions 10000000 --seed 1 --vlen 0 128 256``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.differential.compare import Tally, compare
from tests.differential.items import patterns
from tests.differential.machines import VLENS
from tests.differential.table import coverage_page, coverage_table

BATCH = 2000
PROGRESS_S = 60
#: Sequences of all instructions, those that the peer lacks among them, for the table.
OURS_ALONE = 400


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument(
        "--instructions", type=int, default=1_000_000, help="generated instructions to run on each machine"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first sequence; each next one counts up")
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences in one run of each machine")
    parser.add_argument("--shrinks", type=int, default=3, help="failures to shrink")
    parser.add_argument(
        "--vlen", type=int, nargs="+", choices=VLENS, default=[0], help="machines by their vectors; 0: none"
    )
    parser.add_argument(
        "--table", action="store_true", help="print every instruction with its number of vectors"
    )
    parser.add_argument("--page", type=Path, help="write that table to this file, as a page")
    options = parser.parse_args()
    whole, runs = Tally(), []
    seed = options.seed
    for vlen in options.vlen:
        tally = Tally()
        first, seed = seed, run(tally, seed, vlen, options)
        whole.add(tally)
        runs.append(
            f"{f'VLEN {vlen}' if vlen else 'no vectors'}: seeds {first} to {seed - 1}, {tally.summary()}"
        )
        print(runs[-1], flush=True)
    if options.table or options.page:
        for vlen in (0, max(VLENS)):
            whole.add(compare(seed, OURS_ALONE, against=["interp"], vlen=vlen))
    counts = {"jit": whole.vectors, **whole.agreed}
    if options.table:
        print(coverage_table(counts))
    if options.page:
        options.page.write_text(coverage_page(counts, runs))
    for failure in whole.failures:
        print(failure.text())
    missing = {p.mnemonic for p in patterns()} - set(whole.vectors)
    if options.table or options.page:
        print("in no sequence: " + " ".join(sorted(missing)))
    return 1 if whole.failures else 0


def run(tally: Tally, seed: int, vlen: int, options: argparse.Namespace) -> int:
    """Compare from a seed on until there are instructions enough; return the next seed. Differences print at once."""
    told_at = time.monotonic()
    while tally.instructions < options.instructions:
        told = len(tally.failures)
        compare(seed, options.batch, tally=tally, shrinks=options.shrinks, vlen=vlen)
        seed += options.batch
        for failure in tally.failures[told:]:
            print(failure.text(), file=sys.stderr, flush=True)
        if time.monotonic() > told_at + PROGRESS_S:
            told_at = time.monotonic()
            print(f"up to seed {seed - 1}: {tally.summary()}", file=sys.stderr, flush=True)
    return seed


if __name__ == "__main__":
    sys.exit(main())
