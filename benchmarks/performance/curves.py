"""Time and memory of a training step by batch, features, width, threads and history: ours, and torch by hand.

    python benchmarks/performance/curves.py [--by batch features width threads history] [--quick]

One of them changes, the others stay at batch 4096, 39 features, width 16, as many threads as there are; a step of
DCNv2 on 5 M rows, Zipf 1.05 ids, by hand with sparse Adagrad. By history it is one of DIN (see `din.py`): 1,024 rows,
lognormal histories of that median length, by hand padded, with SparseAdam. Memory is the peak of the whole process,
both dtypes together. `plot_curves.py` draws them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import din
from contenders import Contender, Timed, Turns, in_turns, ours, peer
from measured import RESULTS, in_ms, keep, machine
from workload import Sizes, rows_in_all, write

HAND = "sparse Adagrad"
VALUES: dict[str, tuple[int, ...]] = {
    "batch": (512, 1024, 2048, 4096, 8192),
    "features": (10, 20, 39, 80),
    "width": (4, 8, 16, 32, 64),
    "threads": tuple(range(1, (os.cpu_count() or 1) + 1)),
    "history": (10, 20, 40, 80, 160, 320),
}
DTYPES = ("fp32", "bf16")
ROWS = 5_000_000
Timers = dict[str, tuple[Contender, str]]  # by the name of a line: whom to ask, and for which mode


def sizes_of(by: str, value: int) -> Sizes:
    standard = rows_in_all(ROWS, steps=8)
    if by == "features":
        return replace(standard, features=value, rows_of_a_feature=round(ROWS / value))
    return replace(standard, **{by: value})


def of_dcnv2(by: str, value: int, folder: Path, quick: bool, stack: ExitStack) -> Timers:
    sizes = replace(sizes_of(by, value).quick(), **{by: value}) if quick else sizes_of(by, value)
    here = write(sizes, folder)
    hands = [f"{HAND} {dtype}" for dtype in DTYPES]
    mine = stack.enter_context(ours("ours_dcnv2", here, sizes.threads))
    hand = stack.enter_context(peer("dcnv2_by_hand", here, sizes.threads, modes=hands))
    timers: Timers = {f"ours, {dtype}": (mine, f"{dtype}, zipf") for dtype in DTYPES}
    return timers | {f"by hand, {dtype}": (hand, mode) for dtype, mode in zip(DTYPES, hands, strict=True)}


def of_din(median: int, folder: Path, quick: bool, stack: ExitStack) -> Timers:
    histories = din.Histories(median=float(median), steps=2)
    histories = histories.quick() if quick else histories
    here = din.write(histories, folder)
    padded = [f"padded, {dtype}" for dtype in DTYPES]
    mine = stack.enter_context(ours("ours_din", here, histories.threads))
    hand = stack.enter_context(peer("din_models", here, histories.threads, modes=padded))
    timers: Timers = {f"ours, {dtype}": (mine, dtype) for dtype in DTYPES}
    return timers | {f"by hand, {dtype}": (hand, mode) for dtype, mode in zip(DTYPES, padded, strict=True)}


def curve(by: str, values: Sequence[int], turns: Turns, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A point a value and contender: `by`, `value`, `name`, and its run in ms."""
    points = []
    for value in values:
        here = folder / f"{by}-{value}"
        with ExitStack() as stack:
            history = by == "history"
            timers = of_din(value, here, quick, stack) if history else of_dcnv2(by, value, here, quick, stack)
            timed = {name: Timed(*timer) for name, timer in timers.items()}
            in_turns(list(timed.values()), turns)
            points += [{"by": by, "value": value, "name": name, **asdict(in_ms(one))} for name, one in timed.items()]
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", nargs="+", choices=list(VALUES), default=list(VALUES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(rounds=3, steps=2)
    with tempfile.TemporaryDirectory() as scratch:
        for by in options.by:
            values = (2,) if options.quick else VALUES[by]
            on = machine(Sizes.threads)
            points = curve(by, values, turns, Path(scratch), options.quick)
            beside: dict[str, Any] = {by: {"machine": on, "points": points}}
            keep("curves", [], on, options.out, **beside)


if __name__ == "__main__":
    main()
