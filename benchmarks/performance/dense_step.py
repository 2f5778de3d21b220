"""RankMixer's blocks (16 tokens of 256, 2 layers, expansion 2), forward and backward, beside the matrix products they
are made of; in float32 and bf16.

    python benchmarks/performance/dense_step.py [--rows 512 2048] [--quick]

A step goes from `[B, T, D]` to the gradients of it and of all parameters (`ours_dense_step.py`). Ours is a
`RankMixerBlock`, in bf16 under autocast; eager is the same with torch's bodies; torch.compile is that compiled, skipped
aloud where no C++ compiler is on the path. In float32 ours has no bodies of its own: ours and eager are one. Products
alone are those of a step, each in the way that was the fastest in a first look, one after another. All in one process,
in turns.

FLOPs of a step: 3 · 4 k L T D² a row, k the expansion. MFU: FLOPs a second over the peak, which is the best of 5
products of 4096 x 4096 in bf16 by torch, in the same process and between the turns, for float32 too. It can be
above 1 for products: torch's product is no bound on the tile unit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contenders import Timed, Turns, in_turns, one_round, ours
from measured import RESULTS, Figure, Run, in_ms, keep, machine, rounded, run_of

DTYPES = ("fp32", "bf16")
OF_PRODUCTS = 1.6  # times
MFU = 0.4  # of the peak
PEAKS = 5  # products
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    rows: int
    tokens: int = 16
    width: int = 256
    layers: int = 2
    expansion: int = 2
    blocks: tuple[int, ...] = (128, 256, 512)  # rows
    peak: int = 4096
    compile: bool = True
    threads: int = 2

    @property
    def flops(self) -> int:
        """Of a step."""
        return 3 * 4 * self.expansion * self.layers * self.tokens * self.width**2 * self.rows

    def quick(self) -> Sizes:
        return replace(self, rows=64, tokens=4, width=64, blocks=(32,), peak=128, compile=False, threads=1)




def measured(sizes: Sizes, folder: Path, turns: Turns) -> tuple[list[Figure], Tables, Tables]:
    """Figures, tables beside them, and where the time of our step goes."""
    folder.mkdir(parents=True)
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)))
    with ours("ours_dense_step", folder, sizes.threads) as look:
        looks = {mode: Timed(look, mode) for mode in look.modes}
        in_turns(list(looks.values()), replace(turns, rounds=min(2, turns.rounds)))
    ways, shown = fastest({mode: min(each.seconds) for mode, each in looks.items()})
    (folder / "ways.json").write_text(json.dumps(ways))
    with ours("ours_dense_step", folder, sizes.threads) as mine:
        timed = {mode: Timed(mine, mode) for mode in mine.modes if mode != "peak"}
        peak = Timed(mine, "peak")
        for number in range(PEAKS + 1):  # the first does not count
            one_round([peak], Turns(steps=1), counts=number > 0)
            one_round(list(timed.values()), turns, counts=number > 0)
        profiles = {dtype: mine.profile(f"ours {dtype}", turns.steps) for dtype in DTYPES}
    if sizes.compile and "torch.compile bf16" not in timed:
        print("SKIPPED: torch.compile needs a C++ compiler on the path, there is none", file=sys.stderr)
    runs = {mode: in_ms(each) for mode, each in timed.items()}
    best = 2 * sizes.peak**3 / min(peak.seconds) / 1e9
    tables = {
        f"Steps and their products, {sizes.rows} rows (peak: {best:,.0f} GFLOP/s)": used(sizes, runs, best),
        f"The fastest way of each product of a layer, {sizes.rows} rows": shown,
    }
    return compared(sizes, runs, best, mine.versions), tables, profiles


def fastest(seconds: dict[str, float]) -> tuple[dict[str, dict[str, str]], list[dict[str, Any]]]:
    """Of dtype and product the fastest way; and a row a product that says so. Modes are DTYPE, PRODUCT, WAY."""
    ways: dict[str, dict[str, str]] = {}
    shown: dict[str, dict[str, Any]] = {}
    for mode in sorted(seconds, key=seconds.__getitem__, reverse=True):  # so the last that is put is the fastest
        dtype, product, way = mode.split(", ")
        ways.setdefault(dtype, {})[product] = way
        shown.setdefault(product, {"product": product})[dtype] = f"{rounded(1e3 * seconds[mode])} ms, {way}"
    return ways, [shown[product] for product in sorted(shown)]


def used(sizes: Sizes, runs: dict[str, Run], peak: float) -> list[dict[str, Any]]:
    """A row a mode: its time, FLOPs and share of the peak, and how much of the products' time it is; of medians."""
    rows = []
    for mode, run in runs.items():
        name, _, dtype = mode.rpartition(" ")
        speed = sizes.flops / run.median / 1e6
        row = {"dtype": dtype, "what": name, "ms": run.median, "least ms": run.low, "GFLOP/s": rounded(speed)}
        of_products = f"{run.median / runs[f'products {dtype}'].median:.2f}"
        rows.append(row | {"MFU": f"{speed / peak:.3f}", "of its products": of_products})
    return rows


def compared(sizes: Sizes, runs: dict[str, Run], peak: float, versions: dict[str, str]) -> list[Figure]:
    def figure(dtype: str, theirs: str, target: float, at_most: bool = False) -> Figure:
        return Figure(
            label=f"RankMixer step, {sizes.rows} rows, {dtype}: {theirs}",
            unit="ms",
            ours=runs[f"ours {dtype}"],
            theirs=runs[f"{theirs} {dtype}"],
            target=target,
            at_most=at_most,
            versions=versions,
        )

    figures = [figure(dtype, "products", OF_PRODUCTS, at_most=True) for dtype in DTYPES]
    figures.append(figure("bf16", "eager", 1.0))
    figures += [figure(dtype, "torch.compile", 1.0) for dtype in DTYPES if f"torch.compile {dtype}" in runs]
    step = runs["ours bf16"]
    share = Figure(
        label=f"RankMixer step, {sizes.rows} rows, bf16: the peak of products (the ratio is the MFU)",
        unit="GFLOP/s",
        ours=replace(
            run_of([sizes.flops / each / 1e6 for each in (step.low, step.median, step.high)]),
            n=step.n,
            peak_mib=step.peak_mib,
            others=step.others,
        ),
        theirs=run_of([peak]),
        target=MFU,
        versions=versions,
        note=f"the best of {PEAKS} products",
    )
    return [*figures, share]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    every = [Sizes(rows=64).quick()] if options.quick else [Sizes(rows=rows) for rows in options.rows]
    turns = Turns(rounds=1, steps=1, warm=0) if options.quick else Turns(steps=5)
    on = machine(Sizes.threads)
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for sizes in every:
            found, tables, profiles = measured(sizes, Path(scratch) / str(sizes.rows), turns)
            beside: dict[str, Any] = {f"profile of {sizes.rows} rows": profiles}
            keep("dense_step", found, on, options.out, tables=tables, **beside)
            failed |= not all(figure.ok for figure in found)
    sys.exit(int(failed and not options.quick))


if __name__ == "__main__":
    main()
