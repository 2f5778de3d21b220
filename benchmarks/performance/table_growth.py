"""Our own step as tables grow: DCNv2 as in `dcnv2_training.py`, 5 M to 100 M rows × 16 in all, Zipf and uniform ids.

    python benchmarks/performance/table_growth.py [--rows 5000000 20000000 100000000] [--quick]

A process a size, all timed in the same turns. The target is for Zipf ids: uniform ids touch other rows in every batch,
more of them the larger the table, and are the worst there is. What does not fit into memory is skipped, aloud.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from contenders import Timed, Turns, in_turns, ours
from dcnv2_training import DTYPES, named
from measured import RESULTS, Figure, free_mib, in_ms, keep, machine
from workload import Kind, Sizes, rows_in_all, write

KINDS: tuple[Kind, ...] = ("zipf", "uniform")
TARGETS = {"zipf": 1.3, "uniform": 2.0}  # times the step of the smallest; that of uniform ids is our choice
TABLES_WHILE_BUILT = 2.2  # the tables of features, and the arena they are put into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000_000, 20_000_000, 100_000_000])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    asked = [5_000, 20_000] if options.quick else options.rows
    every = [rows_in_all(rows) for rows in sorted(asked)]
    every = [sizes.quick() for sizes in every] if options.quick else every
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(rounds=5)
    on = machine(every[0].threads)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        timed: dict[tuple[str, str], list[tuple[Sizes, Timed]]] = {(d, k): [] for d in DTYPES for k in KINDS}
        for number, sizes in enumerate(every):
            needed = TABLES_WHILE_BUILT * sizes.table_mib
            if needed > free_mib():
                words = f"{named(sizes.rows)} rows need {needed:,.0f} MiB, {free_mib():,.0f} are free"
                print(f"SKIPPED: {words}", file=sys.stderr)
                continue
            folder = write(sizes, Path(scratch) / str(number), KINDS)
            mine = stack.enter_context(ours("ours_dcnv2", folder, sizes.threads))
            for (dtype, kind), here in timed.items():
                here.append((sizes, Timed(mine, f"{dtype}, {kind}")))
        for here in timed.values():
            in_turns([each for _, each in here], turns)
        found = [figure for (dtype, kind), here in timed.items() for figure in grown(dtype, kind, here)]
    keep("table_growth", found, on, options.out)
    sys.exit(int(not options.quick and not all(figure.ok for figure in found)))


def grown(dtype: str, kind: str, timed: list[tuple[Sizes, Timed]]) -> list[Figure]:
    """Each size but the smallest, beside the smallest."""
    (small, first), *others = timed
    runs = [(sizes, in_ms(each)) for sizes, each in others]
    return [
        Figure(
            label=f"step of DCNv2, {dtype}, {kind} ids: {named(sizes.rows)} rows beside {named(small.rows)}",
            unit="ms",
            ours=run,
            theirs=in_ms(first),
            target=TARGETS[kind],
            at_most=True,
            versions=first.contender.versions,
        )
        for sizes, run in runs
    ]


if __name__ == "__main__":
    main()
