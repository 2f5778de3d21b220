"""The k best of many items for a block of queries: `kernels.top_k` beside `torch.matmul` and `torch.topk`.

    python benchmarks/performance/top_k.py [--items 1000000] [--quick]

64 queries of width 64 in float32, k = 100, on one thread and on two; a process each, so that each has a peak of memory
of its own: torch holds all scores between its two operations (4 bytes a query and item), ours a block of 2 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Timed, Turns, in_turns, ours
from measured import RESULTS, Check, Figure, in_ms, keep, machine

THREADS = (1, 2)
SIZES = {"queries": 64, "items": 1_000_000, "width": 64, "k": 100}
LARGEST_DIFFERENCE = 1e-4  # of a score: sums of 64 products in another order


def figures(sizes: dict[str, int], folder: Path, turns: Turns) -> tuple[list[Figure], list[Check]]:
    (folder / "sizes.json").write_text(json.dumps(sizes))
    timed: dict[tuple[str, int], Timed] = {}
    with ExitStack() as stack:
        for threads in THREADS:
            for which in ("ours", "torch"):
                mine = stack.enter_context(ours("ours_top_k", folder, threads, [which]))
                timed[which, threads] = Timed(mine, which)
        in_turns(list(timed.values()), turns)
    found: list[Any] = [np.load(folder / f"scores.{which}.npy", allow_pickle=False) for which in ("ours", "torch")]
    difference = float(np.abs(found[0] - found[1]).max())
    return [
        Figure(
            label=f"the {sizes['k']} best of {sizes['items']:,} items, {sizes['queries']} queries, "
            f"{threads} thread{'s' * (threads > 1)}: torch.topk",
            unit="ms",
            ours=in_ms(timed["ours", threads]),
            theirs=in_ms(timed["torch", threads]),
            target=1.0,
            versions=timed["ours", threads].contender.versions,
        )
        for threads in THREADS
    ], [Check(label="largest difference of a score to torch's", value=difference, target=LARGEST_DIFFERENCE)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=SIZES["items"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes = SIZES | ({"items": 5_000, "k": 10} if options.quick else {"items": options.items})
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(rounds=7)
    on = machine(max(THREADS))
    with tempfile.TemporaryDirectory() as scratch:
        found, checks = figures(sizes, Path(scratch), turns)
    keep("top_k", found, on, options.out, checks=checks)
    good = all(figure.ok for figure in found) or options.quick
    sys.exit(int(not good or not all(check.ok for check in checks)))


if __name__ == "__main__":
    main()
