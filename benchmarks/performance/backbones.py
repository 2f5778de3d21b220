"""How much of what the processor can do backbones use: rows a second and FLOPs a second, in training and in scoring.

    python benchmarks/performance/backbones.py [--quick]

The recipes of `benchmarks/backbones/recipes.py` on a simulated log with histories of at most 20 events: whole training
steps of 1,024 rows in memory, float32, and one request with 1,000 candidates, encoded and scored. A probe is one
measurement of `fullrank train … --probe-every 200`, held against 200 steps. FLOPs are those that torch counts in the
plain-torch bodies, forward (training: three times that); bodies that pad nothing may do with less. Beside them the
matrix products alone: the fastest float32 product of 2048 x 2048 in the same process, in turns with the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from contenders import Timed, Turns, in_turns, ours
from measured import RESULTS, Check, keep, machine, rounded, run_of

ROWS, CANDIDATES, PEAK = 1024, 1000, 2048
EVERY, PROBES = 200, 0.03  # steps between probes, and what these may add
THREADS = 2


def used(mine: dict[str, Timed], about: dict[str, Any], sizes: dict[str, int]) -> list[dict[str, Any]]:
    """A row a backbone: its size and work, its rates, and what share of the products' rate that is."""
    best = 2 * sizes["peak"] ** 3 / min(mine["peak"].seconds) / 1e9
    lines = []
    for name, counted in about.items():
        line: dict[str, Any] = {"backbone": name, "dense parameters": f"{counted['dense']:,}"}
        for what, times, rows in (("train", 3, sizes["rows"]), ("score", 1, sizes["candidates"])):
            rate = rows / run_of(mine[f"{what} {name}"].seconds).median
            speed = times * counted[what] * rate / 1e3
            line[f"{what}, MFLOP a row"] = rounded(times * counted[what])
            line |= {f"{what}, rows/s": rounded(rate), f"{what}, GFLOP/s": rounded(speed)}
            line[f"{what}, of products"] = f"{speed / best:.2f}"
        line["probe, ms"] = rounded(1e3 * run_of(mine[f"probe {name}"].seconds).median)
        lines.append(line)
    return lines


def probed(mine: dict[str, Timed], names: list[str]) -> list[Check]:
    """What a probe every so many steps adds to them, of medians."""

    def cost(name: str) -> float:
        probe, step = (run_of(mine[f"{what} {name}"].seconds).median for what in ("probe", "train"))
        return probe / (EVERY * step)

    label = f"{{}}: what a probe every {EVERY} steps adds to training"
    return [Check(label=label.format(name), value=cost(name), target=PROBES) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes = {"rows": ROWS, "candidates": CANDIDATES, "peak": PEAK, "threads": THREADS}
    sizes |= {"rows": 64, "candidates": 16, "peak": 128, "threads": 1} if options.quick else {}
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(rounds=4, steps=3)
    on = machine(sizes["threads"])
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "sizes.json").write_text(json.dumps(sizes))
        with ours("ours_backbones", Path(made), sizes["threads"]) as process:
            timed = {mode: Timed(process, mode) for mode in process.modes}
            in_turns(list(timed.values()), turns)
            counted = json.loads(process.versions["counted"])
            lines, checks = used(timed, counted, sizes), probed(timed, list(counted))
    keep("backbones", [], on, options.out, checks=checks, tables={"Backbones, float32": lines})
    sys.exit(int(not options.quick and not all(check.ok for check in checks)))


if __name__ == "__main__":
    main()
