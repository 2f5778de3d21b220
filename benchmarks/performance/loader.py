"""Rows a second of loaders alone: 39 categories and a label of 1 M rows, in batches of 4,096.

    python benchmarks/performance/loader.py [--peers FOLDER | --without-peers] [--rows 1000000] [--quick]

Ours reads the file as prepared, the others the file itself, or their own format of it (`peers/loaders.py` says how);
each is timed from asking for an epoch to its last batch, in turns with all others. Like is held against like: ours
shuffled against theirs shuffled, ours in order against theirs in order. PyArrow does not shuffle: it meets both. What
takes minutes for an epoch (fuxictr's npz, torch-rechub's arrays, which go through Python row by row) is asked for the
first 64 batches of one.

Beside them, ours with histories (9 categories, and the newest 50 events of 4 fields; batches of 512). Then how well
ours shuffles: `displacement`, how far a row is from its place in the log (share of the log, mean; 1/3 in a shuffle of
all rows), and `same block`, the chance that two rows of a batch are of one block, beside that in a shuffle of all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender, Timed, Turns, one_round, ours, peer, python_of
from loader_logs import NAMES, write
from measured import RESULTS, Check, Figure, Run, keep, machine, per_second, rounded
from workload import Sizes as Standard

from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partition_writer import BLOCK_ROWS
from fullrank.data.partitions import PreparedData

LEAST, OVER_LIBRARIES, OVER_PYARROW = 2_000_000, 20.0, 1.5
PYARROW = ("pyarrow, Parquet, in order",)
LIBRARIES = (  # the modes of a process each; one has Ray
    ("fuxictr, npz, shuffled",),
    ("fuxictr, Parquet, in order", "fuxictr, Parquet, shuffled", "fuxictr, files of Parquet, shuffled"),
    ("torch-rechub, arrays, shuffled",),
    ("torch-rechub, Parquet, in order",),
)
ROW_BY_ROW = ("fuxictr, npz, shuffled", "torch-rechub, arrays, shuffled")
FAST, SLOW = Turns(rounds=4, steps=2, warm=1), Turns(rounds=4, steps=1, warm=0)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`part`: batches of an epoch that is not timed whole."""

    rows: int = 1_000_000
    batch: int = 4096
    batch_of_histories: int = 512
    part: int = 64
    names: tuple[str, ...] = NAMES
    threads: int = Standard.threads

    def rows_of(self, mode: str) -> int:
        """Of a step."""
        if mode == "histories":
            return self.rows // 2
        return min(self.rows, self.part * self.batch) if mode in ROW_BY_ROW else self.rows


def timed(sizes: Sizes, folder: Path, peers: Path | None, quick: bool) -> tuple[dict[str, Run], dict[str, str]]:
    """The run of every mode, and versions; `peers` None: ours and PyArrow alone."""
    with ExitStack() as stack:

        def started(contender: Contender) -> Contender:
            return stack.enter_context(contender)

        mine = started(ours("ours_loader", folder, sizes.threads))
        contenders = [mine, started(peer("loaders", folder, sizes.threads, modes=PYARROW))]
        if peers is not None:
            python = python_of("libraries", peers)
            contenders += [
                started(peer("loaders", folder, sizes.threads, python=python, modes=modes)) for modes in LIBRARIES
            ]
        every = {mode: Timed(each, mode) for each in contenders for mode in each.modes}
        slow = [each for mode, each in every.items() if mode.startswith(("fuxictr", "torch-rechub"))]
        fast = [each for each in every.values() if each not in slow]
        for number in range(1 if quick else FAST.rounds + 1):
            one_round(fast, FAST, counts=quick or number > 0)
            one_round(slow, SLOW, counts=quick or number > 0)
    runs = {mode: per_second(sizes.rows_of(mode), each) for mode, each in every.items()}
    # Workers of fuxictr's are processes of their own: neither their memory nor their share of the cores is its.
    runs |= {
        mode: replace(run, others=None, peak_mib=None) for mode, run in runs.items() if mode.startswith("fuxictr")
    }
    versions = {name: version for each in [*contenders[1:], mine] for name, version in each.versions.items()}
    return runs, versions


def figures(runs: dict[str, Run], versions: dict[str, str]) -> list[Figure]:
    found = []
    for mode in (*PYARROW, *(mode for modes in LIBRARIES for mode in modes)):
        for order in ("in order", "shuffled"):
            if mode in runs and (mode.endswith(order) or mode in PYARROW):
                found.append(
                    Figure(
                        label=f"loader, {order}: {mode.removesuffix(f', {order}')}",
                        unit="rows/s",
                        ours=runs[order],
                        theirs=runs[mode],
                        target=OVER_PYARROW if mode in PYARROW else OVER_LIBRARIES,
                        others={"with histories of 50 events": runs["histories"]} if order == "shuffled" else None,
                        versions=versions,
                    )
                )
    return found


def shuffling(data: PreparedData, batch: int) -> list[dict[str, Any]]:
    """One line, of the first epoch."""
    loader = Loader(data, Inputs.of(data.schema), "train", batch_size=batch, shuffle=True)
    number, same = [], []
    for found in loader.epoch(0):
        row_B = found.requests.time_R[found.candidates.request_of_row_B].numpy()  # the log's order is its row's number
        number.append(row_B)
        same.append(float(((np.bincount(row_B // BLOCK_ROWS) / len(row_B)) ** 2).sum()))
    row_N = np.concatenate(number)
    share = np.bincount(row_N // BLOCK_ROWS) / len(row_N)
    return [
        {
            "displacement": rounded(float(np.abs(row_N - np.arange(len(row_N))).mean() / len(row_N))),
            "same block": rounded(float(np.mean(same))),
            "same block in a shuffle of all": rounded(float((share**2).sum())),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--without-peers", action="store_true", help="against PyArrow alone")
    parser.add_argument("--rows", type=int, default=Sizes.rows)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes = Sizes(rows=options.rows)
    if options.quick:
        sizes = replace(sizes, rows=3000, batch=256, batch_of_histories=64, part=4)
    on = machine(sizes.threads)
    with tempfile.TemporaryDirectory() as scratch:
        peers = None if options.without_peers else (options.peers or Path(scratch) / "peers").absolute()
        flat, _ = write(Path(scratch) / "work", sizes.rows)
        (Path(scratch) / "work" / "sizes.json").write_text(json.dumps(asdict(sizes)))
        runs, versions = timed(sizes, Path(scratch) / "work", peers, options.quick)
        shuffled = shuffling(flat, sizes.batch)
    found = figures(runs, versions)
    delivered = Check(label="loader, shuffled: rows/s", value=runs["shuffled"].median, target=LEAST, at_least=True)
    tables = {"How well it shuffles": shuffled}
    keep("loader", found, on, options.out, checks=[delivered], tables=tables)
    sys.exit(int(not options.quick and not all(each.ok for each in (*found, delivered))))


if __name__ == "__main__":
    main()
