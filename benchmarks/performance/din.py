"""Training DIN on ragged histories: rows a second of whole steps, ours beside padding and beside FuxiCTR's layers.

    python benchmarks/performance/din.py [--peers FOLDER | --without-peers] [--medians 10 160] [--quick]

A row is a request of its own with one candidate; histories are lognormal (median 40, sigma 1, at most 1,000). 100,000
items of width 16, Zipf 1.05; an activation unit of (80, 40) with Dice and no softmax, an MLP of (200, 80), mean
log-loss; 1,024 rows a batch in memory: forward, backward, dense and table step. (Padded, 4,096 rows take 20 GB.)

Ours computes the pairs there are; the table learns by lazy Adam. Against (`peers/din_models.py`)
* padded: the same unit as an expert would write it on `[B, L]`, L the longest of the batch, and torch's SparseAdam; in
  float32 and under bf16 autocast, each beside ours of that dtype.
* fuxictr: its own `DIN_Attention` and `MLP_Block`, in float32, and dense Adam over every row of the table, as its
  layers give dense gradients. Padded to the longest of the batch too, where its own loader pads all batches alike.
* ours, with the plain-torch references of our kernels, which write the pairs out.

Then the same with other medians, ours and padded: what is padded costs by the longest, what is ragged by the mean.
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
from contenders import Timed, Turns, in_turns, ours, peer, python_of
from measured import RESULTS, Figure, Run, keep, machine, per_second, rounded
from workload import Sizes, ids

DTYPES = ("fp32", "bf16")
OVER_FUXICTR, OVER_PADDED, OVER_PLAIN = 10.0, 3.0, 1.0
MEDIANS = (10.0, 160.0)


@dataclass(frozen=True, kw_only=True)
class Histories:
    """`steps` batches go round. Item 0 is padding and is not drawn. `median`, `longest`: of histories, in events."""

    rows: int = 1024
    steps: int = 4
    median: float = 40.0
    sigma: float = 1.0
    longest: int = 1000
    items: int = 100_000
    width: int = 16
    attention_hidden: tuple[int, ...] = (80, 40)
    hidden: tuple[int, ...] = (200, 80)
    init_std: float = 0.01
    lr: float = 1e-3
    threads: int = Sizes.threads

    def quick(self) -> Histories:
        """Small enough for a test; its figures mean nothing."""
        return replace(self, rows=32, steps=2, longest=50, items=500, attention_hidden=(8, 4), hidden=(8, 4))


def write(histories: Histories, folder: Path) -> Path:
    """The folder, with `sizes.json`, `candidate.npy` and `lengths.npy` (int64 [S, B]), `events.npy` (int64, all
    histories one after another) and `labels.npy` (float32 [S, B], a quarter of them 1, at random)."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    shape = (histories.steps, histories.rows)
    drawn = random.lognormal(np.log(histories.median), histories.sigma, shape)
    lengths_SB = np.minimum(drawn, histories.longest).astype(np.int64)
    of_items = Sizes(features=1, rows_of_a_feature=histories.items, batch=int(lengths_SB.sum()), steps=1)
    events_E = ids(of_items, "zipf", random).ravel()
    candidate_SB = ids(replace(of_items, batch=histories.rows, steps=histories.steps), "zipf", random)[..., 0]
    labels_SB = (random.random(shape) < 0.25).astype(np.float32)
    arrays = {"candidate": candidate_SB.astype(np.int64), "lengths": lengths_SB, "events": events_E.astype(np.int64)}
    for name, array in {**arrays, "labels": labels_SB}.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "sizes.json").write_text(json.dumps(asdict(histories)))
    return folder


def figures(histories: Histories, turns: Turns, folder: Path, peers: Path | None) -> list[Figure]:
    """`peers` None: beside torch alone."""
    with ExitStack() as stack:
        mine = stack.enter_context(ours("ours_din", folder, histories.threads))
        padded = stack.enter_context(
            peer("din_models", folder, histories.threads, modes=[f"padded, {dtype}" for dtype in DTYPES])
        )
        contenders = [padded, mine]
        if peers is not None:
            python = python_of("libraries", peers)
            libraries = peer("din_models", folder, histories.threads, python=python, modes=["fuxictr, fp32"])
            contenders.insert(0, stack.enter_context(libraries))
        timed = {mode: Timed(each, mode) for each in contenders for mode in each.modes}
        in_turns(list(timed.values()), turns)
    runs = {mode: per_second(histories.rows, each) for mode, each in timed.items()}
    versions = {name: version for each in contenders for name, version in each.versions.items()}

    def figure(dtype: str, name: str, mode: str, target: float, note: str) -> Figure:
        return Figure(
            label=f"DIN, {dtype}: {name}",
            unit="rows/s",
            ours=runs[dtype],
            theirs=runs[mode],
            target=target,
            note=note,
            versions=versions,
        )

    found = []
    if peers is not None:
        note = "fp32, padded, dense Adam"
        found += [figure(dtype, "fuxictr's layers", "fuxictr, fp32", OVER_FUXICTR, note) for dtype in DTYPES]
    for dtype in DTYPES:
        note = f"{dtype}, padded, SparseAdam"
        found.append(figure(dtype, "torch by hand", f"padded, {dtype}", OVER_PADDED, note))
    found.append(figure("fp32", "our kernels in plain torch", "fp32, plain torch", OVER_PLAIN, "the pairs written out"))
    return found


def by_length(histories: Histories, found: list[Figure]) -> list[dict[str, Any]]:
    """A line a dtype: ours and padded, out of the figures of these histories."""

    def line(dtype: str, mine: Run, padded: Run) -> dict[str, Any]:
        rates = {"ours, rows/s": mine.median, "padded, rows/s": padded.median}
        return {"median": histories.median, "dtype": dtype, **rates, "ratio": rounded(mine.median / padded.median)}

    by_hand = {figure.label: figure for figure in found if figure.label.endswith("torch by hand")}
    return [
        line(dtype, figure.ours, figure.theirs)
        for dtype, figure in ((dtype, by_hand[f"DIN, {dtype}: torch by hand"]) for dtype in DTYPES)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--without-peers", action="store_true", help="against torch alone")
    parser.add_argument("--medians", type=float, nargs="*", default=list(MEDIANS), help="other lengths, against torch")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    histories, turns = Histories(), Turns(rounds=4, steps=2)
    if options.quick:
        histories, turns = histories.quick(), Turns(rounds=1, steps=1, warm=0)
    on = machine(histories.threads)
    with tempfile.TemporaryDirectory() as scratch:
        peers = None if options.without_peers else (options.peers or Path(scratch) / "peers").absolute()
        found = figures(histories, turns, write(histories, Path(scratch) / "work"), peers)
        lines = by_length(histories, found)
        for median in [] if options.quick else options.medians:
            other = replace(histories, median=median)
            folder = write(other, Path(scratch) / f"median-{median:g}")
            lines += by_length(other, figures(other, replace(turns, rounds=min(turns.rounds, 2)), folder, None))
    lines.sort(key=lambda line: (DTYPES.index(line["dtype"]), line["median"]))
    keep("din", found, on, options.out, tables={"By the median length of histories": lines})
    sys.exit(int(not options.quick and not all(figure.ok for figure in found)))


if __name__ == "__main__":
    main()
