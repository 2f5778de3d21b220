"""The table step alone, from the gradients of 26 × 4096 look-ups to updated rows of 5.2 M × 16 in float32.

    python benchmarks/performance/table_step.py [--peers FOLDER] [--quick]

Ours: row-wise Adagrad through `TableUpdater` (backward, merge, apply). Theirs: fbgemm's fused exact row-wise Adagrad
(its backward), and `nn.Embedding(sparse=True)` with `SparseAdam` or sparse `Adagrad` (backward and step). Look-ups
are timed apart. The least that could be done is counted in bytes: ids and gradients read once, and the touched rows and
their state read and written once; divided by what a copy of 256 MiB (the fastest; read and
written) gets in the process of ours, in the same turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from contenders import Timed, Turns, in_turns, ours, peer, python_of
from measured import RESULTS, Figure, Run, in_ms, keep, machine
from workload import Kind, Sizes, write

TARGETS = {"fbgemm fused row-wise Adagrad": 9.0, "SparseAdam": 1.0, "sparse Adagrad": 1.0}  # times as fast
COPIED = 256 << 20  # bytes, in `ours_table_step.py`
OF_BYTES = 2.5  # times counted bytes / bandwidth
PARTS = ("look-up", "our merge", "our apply")  # shown beside the figures
KINDS: tuple[Kind, ...] = ("zipf", "uniform")
SIZES = Sizes(features=26, rows_of_a_feature=200_000)


def least_bytes(ids_SBF: np.ndarray, width: int) -> float:
    """Of a step, the mean: 8 a look-up for its id, 4 a number of its gradient, and twice a row with its number of state
    for each row that is touched."""
    looked_up = ids_SBF[0].size
    base = np.arange(ids_SBF.shape[2]) * (int(ids_SBF.max()) + 1)
    touched = np.mean([len(np.unique(ids_BF + base)) for ids_BF in ids_SBF])
    return looked_up * (8 + 4 * width) + float(touched) * 2 * 4 * (width + 1)


def figures(sizes: Sizes, turns: Turns, folder: Path, peers: Path | None) -> list[Figure]:
    """Of both kinds of ids; `peers` None: beside torch alone."""
    with ExitStack() as stack:
        mine = stack.enter_context(ours("ours_table_step", folder, sizes.threads))
        torch_ = stack.enter_context(peer("table_step_torch", folder, sizes.threads))
        contenders = [mine, torch_]
        modes = {"SparseAdam": (torch_, "SparseAdam"), "sparse Adagrad": (torch_, "sparse Adagrad")}
        if peers is not None:
            python = python_of("fbgemm", peers)
            fused = stack.enter_context(peer("table_step_fbgemm", folder, sizes.threads, python=python))
            contenders.append(fused)
            modes |= {"fbgemm fused row-wise Adagrad": (fused, "step"), "fbgemm look-up": (fused, "forward")}
        modes |= {"ours": (mine, "step"), "our look-up": (mine, "forward")}
        modes |= {"our merge": (mine, "merge"), "our apply": (mine, "apply")}
        copies = Timed(mine, "copy")
        versions = {name: version for each in contenders for name, version in each.versions.items()}
        found = []
        for kind in KINDS:
            timed = {name: Timed(each, f"{mode}, {kind}") for name, (each, mode) in modes.items()}
            in_turns([*timed.values(), copies], turns)
            runs = {name: in_ms(each) for name, each in timed.items()}
            counted = least_bytes(np.load(folder / f"ids.{kind}.npy", allow_pickle=False), sizes.width)
            found += compared(kind, runs, counted, 2 * COPIED / min(copies.seconds), versions)
    return found


def compared(
    kind: Kind, runs: dict[str, Run], counted: float, of_a_copy: float, versions: dict[str, str]
) -> list[Figure]:
    """Ours beside each of the others, and beside the bytes."""
    least = float(f"{1e3 * counted / of_a_copy:.4g}")
    bytes_ = f"{counted / 1e6:.1f} MB at {of_a_copy / 1e9:.1f} GB/s"
    figures = []
    for name, target in TARGETS.items():
        if name in runs:
            figures.append(
                Figure(
                    label=f"table step, {kind}: {name}",
                    unit="ms",
                    ours=runs["ours"],
                    theirs=runs[name],
                    target=target,
                    others={other: run for other, run in runs.items() if other.endswith(PARTS)},
                    versions=versions,
                )
            )
    floor = Figure(
        label=f"table step, {kind}: counted bytes by the bandwidth of a copy",
        unit="ms",
        ours=runs["ours"],
        theirs=Run(median=least, low=least, high=least, n=1),
        target=OF_BYTES,
        at_most=True,
        versions=versions,
        note=bytes_,
    )
    return [*figures, floor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--without-peers", action="store_true", help="against torch alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes, turns = (SIZES.quick(), Turns(rounds=1, steps=1)) if options.quick else (SIZES, Turns(rounds=6, steps=2))
    on = machine(sizes.threads)
    with tempfile.TemporaryDirectory() as scratch:
        peers = None if options.without_peers else (options.peers or Path(scratch) / "peers").absolute()
        folder = write(sizes, Path(scratch) / "work", KINDS)
        found = figures(sizes, turns, folder, peers)
    keep("table_step", found, on, options.out)
    sys.exit(int(not options.quick and not all(figure.ok for figure in found)))


if __name__ == "__main__":
    main()
