"""TokenFormer on streams of unequal length: a training step of ours, which pads nothing, beside the same layers padded.

    python benchmarks/performance/streams.py [--medians 50 200 1000] [--quick]

A row is a request of its own with one candidate: 4 fields, a history of lognormal length (sigma 1), the candidate's
item and kind. TokenFormer of width 64, 4 heads, expansion 4, two full layers and windows of 32 and 16; a whole step:
forward, backward, dense and table update. Rows a batch and the longest history go by the median, so that what is padded
fits into memory.

Padded: the same weights as an expert would run them on `[B, S, D]`, S the longest stream of the batch. Padding stands
behind the candidate, so the masks of a layer are one for all rows and the full layers use torch's own causal attention;
the last layer makes the candidate alone, as ours does.
One process, in turns; before anything is timed both must have the same logits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contenders import Timed, Turns, in_turns, ours
from measured import RESULTS, Check, Figure, keep, machine, per_second

DTYPES = ("fp32", "bf16")
TARGET = 3.0
MOST_APART = 1e-4  # logits of ours and of what is padded, float32


@dataclass(frozen=True, kw_only=True)
class Streams:
    """`median`, `longest`: of histories, in events."""

    median: int
    longest: int
    rows: int
    sigma: float = 1.0
    fields: int = 4
    items: int = 10_000
    embedding: int = 16
    width: int = 64
    heads: int = 4
    expansion: int = 4
    full_layers: int = 2
    windows: tuple[int, ...] = (32, 16)
    steps: int = 2
    threads: int = 2

    def quick(self) -> Streams:
        return replace(self, longest=30, rows=16, items=100, width=16, heads=2, windows=(4,), threads=1)


OF_MEDIAN = {
    50: Streams(median=50, longest=500, rows=256),
    200: Streams(median=200, longest=1000, rows=64),
    1000: Streams(median=1000, longest=4000, rows=16),
}


def measured(streams: Streams, folder: Path, turns: Turns) -> tuple[list[Figure], list[Check]]:
    folder.mkdir(parents=True)
    (folder / "sizes.json").write_text(json.dumps(asdict(streams)))
    with ours("ours_streams", folder, streams.threads) as mine:
        timed = {mode: Timed(mine, mode) for mode in mine.modes}
        in_turns(list(timed.values()), turns)
    runs = {mode: per_second(streams.rows, each) for mode, each in timed.items()}
    tokens = f"{float(mine.versions['tokens']):.0%} of the padded tokens are real"
    figures = [
        Figure(
            label=f"TokenFormer step, histories of median {streams.median}, {dtype}: padded",
            unit="rows/s",
            ours=runs[dtype],
            theirs=runs[f"padded, {dtype}"],
            target=TARGET,
            note=f"{streams.rows} rows, at most {streams.longest} events; {tokens}",
            versions=mine.versions,
        )
        for dtype in DTYPES
    ]
    apart = Check(
        label=f"TokenFormer, histories of median {streams.median}: logits of ours and of what is padded, float32",
        value=float(mine.versions["apart"]),
        target=MOST_APART,
    )
    return figures, [apart]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medians", type=int, nargs="+", choices=list(OF_MEDIAN), default=list(OF_MEDIAN))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    every = [OF_MEDIAN[50].quick()] if options.quick else [OF_MEDIAN[median] for median in options.medians]
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(rounds=4, steps=2)
    on = machine(every[0].threads)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for streams in every:
            figures, checks = measured(streams, Path(scratch) / str(streams.median), turns)
            keep("streams", figures, on, options.out, checks=checks)
            failed |= not all(one.ok for one in (*figures, *checks))
    sys.exit(int(failed and not options.quick))


if __name__ == "__main__":
    main()
