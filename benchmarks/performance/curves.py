"""Time and memory of a DCNv2 step by batch, features, width and threads: ours, and torch by hand with sparse Adagrad.

    python benchmarks/performance/curves.py [--by batch features width threads] [--quick]

One of them changes, the others stay at batch 4096, 39 features, width 16, as many threads as there are; 5 M rows, Zipf
1.05 ids. Memory is the peak of the whole process, both dtypes together. `plot_curves.py` draws them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from contenders import Timed, Turns, in_turns, ours, peer
from measured import RESULTS, in_ms, keep, machine
from workload import Sizes, rows_in_all, write

HAND = "sparse Adagrad"
VALUES: dict[str, tuple[int, ...]] = {
    "batch": (512, 1024, 2048, 4096, 8192),
    "features": (10, 20, 39, 80),
    "width": (4, 8, 16, 32, 64),
    "threads": tuple(range(1, (os.cpu_count() or 1) + 1)),
}
NAMES = {
    "ours, fp32": ("ours", "fp32, zipf"),
    "ours, bf16": ("ours", "bf16, zipf"),
    "by hand, fp32": ("hand", f"{HAND} fp32"),
    "by hand, bf16": ("hand", f"{HAND} bf16"),
}
ROWS = 5_000_000


def sizes_of(by: str, value: int) -> Sizes:
    standard = rows_in_all(ROWS, steps=8)
    if by == "features":
        return replace(standard, features=value, rows_of_a_feature=round(ROWS / value))
    return replace(standard, **{by: value})


def curve(by: str, values: Sequence[int], turns: Turns, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """A point a value and contender: `by`, `value`, `name`, and its run in ms."""
    points = []
    for value in values:
        sizes = replace(sizes_of(by, value).quick(), **{by: value}) if quick else sizes_of(by, value)
        here = write(sizes, folder / f"{by}-{value}")
        hands = [f"{HAND} {dtype}" for dtype in ("fp32", "bf16")]
        with (
            ours("ours_dcnv2", here, sizes.threads) as mine,
            peer("dcnv2_by_hand", here, sizes.threads, modes=hands) as hand,
        ):
            of = {"ours": mine, "hand": hand}
            timed = {name: Timed(of[who], mode) for name, (who, mode) in NAMES.items()}
            in_turns(list(timed.values()), turns)
            for name, each in timed.items():
                run = asdict(in_ms(each))
                points.append({"by": by, "value": value, "name": name, **run})
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
            values = (1, 2) if options.quick else VALUES[by]
            on = machine(Sizes.threads)
            points = curve(by, values, turns, Path(scratch), options.quick)
            keep("curves", [], on, options.out, **{by: {"machine": on, "points": points}})


if __name__ == "__main__":
    main()
