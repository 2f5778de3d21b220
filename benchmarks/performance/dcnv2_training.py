"""Training DCNv2 (39 categorical features, width 16, 3 full-rank cross layers beside an MLP of 400 × 3, "parallel"),
batches of 4096 in memory, Zipf 1.05 ids: rows a second of whole steps.

    python benchmarks/performance/dcnv2_training.py [--peers FOLDER] [--rows 100000 5000000 50000000] [--quick]
        [--against by-hand fbgemm fuxictr torch-rechub]

Against
* by-hand: plain torch with one table, and the fastest of its table optimizers (`peers/dcnv2_by_hand.py`), in the same
  dtype. All are timed in a first look; the fastest is then timed beside ours.
* fbgemm: the same above fbgemm's tables with fused exact row-wise Adagrad.
* fuxictr, torch-rechub: their own layers, float32, and their own optimizer: *dense* Adam over every row of every table,
  so that their step costs more the more rows there are. Ours touches rows of the batch alone: row-wise Adagrad.

All: the same ids, labels, sizes, scale of first rows, and mean log-loss; torch's Adam for dense weights, lr 1e-3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from contenders import Contender, Timed, Turns, in_turns, ours, peer, python_of
from measured import RESULTS, Figure, free_mib, keep, machine, per_second
from workload import Sizes, rows_in_all, write

AGAINST = ("by-hand", "fbgemm", "fuxictr", "torch-rechub")
SCRIPTS = {"fuxictr": "dcnv2_fuxictr", "torch-rechub": "dcnv2_rechub", "fbgemm": "dcnv2_fbgemm"}
DTYPES = ("fp32", "bf16")
LIBRARY_TARGETS = {100_000: (1.5, 3.5), 5_000_000: (5.0, 11.0), 50_000_000: (40.0, 80.0)}  # fp32, bf16
BY_HAND_TARGET = 1.5
TABLES_OF_DENSE_ADAM = 4.5  # weights, gradients, two moments, and what a step needs besides
LOOK = Turns(rounds=2, steps=2)


def by_hand(sizes: Sizes, folder: Path, mine: Contender, turns: Turns) -> tuple[list[Figure], dict[str, Any]]:
    """Ours beside the fastest by hand in each dtype, and what the look at all of them found (rows/s)."""
    with peer("dcnv2_by_hand", folder, sizes.threads) as every:
        looks = {mode: Timed(every, mode) for mode in every.modes}
        in_turns(list(looks.values()), replace(LOOK, rounds=min(LOOK.rounds, turns.rounds)))
    looked = {mode: per_second(sizes.batch, each).median for mode, each in looks.items()}
    best = {dtype: max((m for m in looked if m.endswith(dtype)), key=looked.__getitem__) for dtype in DTYPES}
    with peer("dcnv2_by_hand", folder, sizes.threads, modes=list(best.values())) as theirs:
        pairs = [(dtype, best[dtype].removesuffix(f" {dtype}"), best[dtype]) for dtype in DTYPES]
        return beside(sizes, mine, theirs, "torch by hand", pairs, (BY_HAND_TARGET,) * 2, turns), looked


def library(name: str, sizes: Sizes, folder: Path, mine: Contender, turns: Turns, peers: Path) -> list[Figure]:
    python = python_of("fbgemm" if name == "fbgemm" else "libraries", peers)
    with peer(SCRIPTS[name], folder, sizes.threads, python=python) as theirs:
        if name == "fbgemm":
            pairs = [(dtype, "fused row-wise Adagrad", dtype) for dtype in DTYPES]
            return beside(sizes, mine, theirs, name, pairs, (BY_HAND_TARGET,) * 2, turns)
        pairs = [(dtype, "fp32, dense Adam", "fp32") for dtype in DTYPES]
        targets = LIBRARY_TARGETS[min(LIBRARY_TARGETS, key=lambda rows: abs(rows - sizes.rows))]
        return beside(sizes, mine, theirs, name, pairs, targets, turns)


def beside(
    sizes: Sizes,
    mine: Contender,
    theirs: Contender,
    name: str,
    pairs: list[tuple[str, str, str]],
    targets: tuple[float, ...],
    turns: Turns,
) -> list[Figure]:
    """A figure a pair (our dtype, what theirs is, their mode); all of them timed in the same turns."""
    own = {dtype: Timed(mine, f"{dtype}, zipf") for dtype, _, _ in pairs}
    other = {mode: Timed(theirs, mode) for _, _, mode in pairs}
    in_turns([*own.values(), *other.values()], turns)

    return [
        Figure(
            label=f"DCNv2, {named(sizes.rows)} rows, {dtype}: {name}",
            unit="rows/s",
            ours=per_second(sizes.batch, own[dtype]),
            theirs=per_second(sizes.batch, other[mode]),
            target=target,
            note=what,
            versions={**theirs.versions, **mine.versions},
        )
        for (dtype, what, mode), target in zip(pairs, targets, strict=True)
    ]


def named(rows: int) -> str:
    return f"{rows / 1e6:.0f} M" if rows > 999_000 else f"{rows / 1e3:.0f} k"


def turns_of(sizes: Sizes, against: str) -> Turns:
    """Fewer steps where one takes seconds."""
    slow = against in ("fuxictr", "torch-rechub") and sizes.rows > 1_000_000
    if sizes.rows > 10_000_000 and slow:
        return Turns(rounds=2, steps=1, warm=0)
    return Turns(rounds=4, steps=2) if slow else Turns()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--rows", type=int, nargs="+", default=list(LIBRARY_TARGETS))
    parser.add_argument("--against", nargs="*", choices=AGAINST, default=list(AGAINST))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        peers = (options.peers or Path(scratch) / "peers").absolute()
        for rows in options.rows[:1] if options.quick else options.rows:
            sizes = rows_in_all(rows).quick() if options.quick else rows_in_all(rows)
            on = machine(sizes.threads)
            folder = write(sizes, Path(scratch) / str(rows))
            with ExitStack() as stack:
                mine = stack.enter_context(ours("ours_dcnv2", folder, sizes.threads))
                mine.seconds("fp32, zipf", 1, 0)
                for against in options.against:
                    if skipped(sizes, against):
                        continue
                    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else turns_of(sizes, against)
                    if against == "by-hand":
                        found, looked = by_hand(sizes, folder, mine, turns)
                        beside_them = {f"look at {named(sizes.rows)} rows": looked}
                    else:
                        found = library(against, sizes, folder, mine, turns, peers)
                        beside_them = {}
                    keep("dcnv2_training", found, on, options.out, **beside_them)
                    failed |= not all(figure.ok for figure in found)
                profiles = {dtype: mine.profile(f"{dtype}, zipf", 3) for dtype in DTYPES}
                keep("dcnv2_training", [], on, options.out, **{f"profile of {named(sizes.rows)} rows": profiles})
    sys.exit(int(failed and not options.quick))


def skipped(sizes: Sizes, against: str) -> bool:
    """Whether there is no such figure (said aloud where memory is why)."""
    if against in ("by-hand", "fbgemm"):
        return sizes.rows > 10_000_000
    needed = TABLES_OF_DENSE_ADAM * sizes.table_mib
    if needed > free_mib():
        words = f"{against} at {named(sizes.rows)} rows needs {needed:,.0f} MiB, {free_mib():,.0f} are free"
        print(f"SKIPPED: {words}", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    main()
