"""Backbones on the same rows: quality, ranks at the end, size and speed; a line of JSON a run.

    python benchmarks/backbones/grid.py --data FOLDER --work FOLDER [--figures core ffn ...] [--hours 10] [--part 0 2]
    python benchmarks/backbones/grid.py --data FOLDER --work FOLDER --sizes

Lines are appended to benchmarks/results/backbones.jsonl, and what is there is not run again, so that a grid survives
being stopped; the processor's hours spent are printed. One thread a process: `--part 0 2` and `--part 1 2` side by side
use two. `--sizes` prints parameters and training MFLOP a row of every recipe and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import BATCH, FIGURES, Cell, cells
from sizes import dense_parameters, mflop_forward
from stored import LINES, read
from torch import nn
from worlds import SIMULATED, SMALL, found_of_truth, truth_of

from fullrank.data.batch import Batch
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics import event_ranks, point_ranks
from fullrank.evaluation.metrics import auc, log_loss
from fullrank.rankers import Ranker
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.callbacks import Callback, StepReport
from fullrank.training.config import TrainConfig
from fullrank.training.environment import environment

ROOT = Path(__file__).resolve().parents[2]
SEEN = 512  # test rows that sizes and ranks are of


class Clock(Callback):
    """Seconds between steps."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step(self, ranker: nn.Module, report: StepReport) -> None:
        self.at.append(time.perf_counter())


def exclude_of(cell: Cell, data: PreparedData) -> tuple[str, ...]:
    """What the cell's model does not read."""
    exclude = cell.world.exclude
    if not cell.fields:
        exclude += tuple(one.name for one in Inputs.of(data.schema, exclude=exclude).request)
    return exclude


def seen(ranker: Ranker, data: PreparedData) -> Batch:
    """Test rows by lot, the same for every model of the same inputs."""
    return next(iter(Loader(data, ranker.inputs, "test", batch_size=SEEN, shuffle=True, seed=0).epoch(0)))


@torch.no_grad()
def ranks_of(ranker: Ranker, batch: Batch) -> dict[str, Any]:
    """Effective ranks of the taps, and of the events of a stream (`events…`), by point and form."""
    taps: dict[str, torch.Tensor] = {}
    ranker.eval()(batch, taps=taps)
    found: dict[str, Any] = {}
    for one in point_ranks(taps):
        found.setdefault(one.point, {})[one.form] = [round(one.mean, 3), one.most]
    for name, both in event_ranks(taps).items():
        found[name] = {"sample": [round(one, 3) for one in both]}
    return found


def run(cell: Cell, data: PreparedData, work: Path, commit: str) -> dict[str, Any]:
    world = cell.world
    folder = work / "runs" / f"{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    training = TrainConfig(epochs=world.epochs, batch_size=BATCH, seed=cell.seed, checkpoint_every_steps=None)
    clock, started = Clock(), time.process_time()
    options: dict[str, Any] = {"seed": cell.seed, "last_n": world.last_n, "exclude": exclude_of(cell, data)}
    made = train_ranker(cell.config, data, folder, training, callbacks=[clock], **options)
    if not made.result.finished:
        raise KeyboardInterrupt  # a signal ended it: no line of half a run
    spent = time.process_time() - started
    ranker = made.ranker.eval()
    told = predict(made.run, ranker, data, "test")
    line: dict[str, Any] = {"data": world.name, "recipe": cell.recipe, "digest": cell.digest, "seed": cell.seed}
    for column, task in enumerate(ranker.inputs.task_names):
        known = told.known_NK[:, column]
        labels, logits = told.labels_NK[known, column], told.logits_NK[known, column]
        line |= {f"{task}.auc": round(auc(labels, logits), 6), f"{task}.log_loss": round(log_loss(labels, logits), 6)}
        if world in (SIMULATED, SMALL):
            truth = found_of_truth(truth_of(world, len(labels)), labels, logits)
            line |= {name: round(value, 4) for name, value in truth.items()}
    batch = seen(ranker, data)
    line |= {"dense_parameters": dense_parameters(ranker), "mflop_a_row": round(3 * mflop_forward(ranker, batch), 3)}
    line |= {"rows_a_second": round(BATCH / float(np.median(np.diff(clock.at)))), "ranks": ranks_of(ranker, batch)}
    shutil.rmtree(folder, ignore_errors=True)
    here = environment()
    on = {"cpu": here.cpu, "threads": torch.get_num_threads(), "torch": here.torch, "commit": commit}
    return line | {"train_cpu_seconds": round(spent), "cpu_seconds": round(time.process_time() - started), **on}


def commit_of() -> str:
    """The commit, with `+` behind it if what makes a run differs from it (the lines themselves do not)."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks/backbones")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


def print_sizes(every: list[Cell], public: Path, work: Path) -> None:
    for cell in every:
        if cell.seed == 0:
            data = cell.world.data(public, work)
            inputs = Inputs.of(data.schema, last_n=cell.world.last_n, exclude=exclude_of(cell, data))
            ranker = cell.config.build(inputs, data.transform.num_rows, 0)
            mflop = 3 * mflop_forward(ranker, seen(ranker, data))
            print(f"{cell.figure:8} {cell.world.name:13} {cell.recipe:28} {dense_parameters(ranker):>9,} {mflop:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="public data sets")
    parser.add_argument("--work", type=Path, required=True, help="prepared data and the run at work")
    parser.add_argument("--figures", nargs="+", choices=[*FIGURES, "small"], default=FIGURES)
    parser.add_argument("--hours", type=float, default=10.0, help="of the processor, all lines together")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every Nth run, from K")
    parser.add_argument("--out", type=Path, default=LINES)
    parser.add_argument("--sizes", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    once: dict[tuple[str, str, int], Cell] = {}
    for cell in cells(tuple(options.figures)):
        once.setdefault(cell.key, cell)
    every = list(once.values())
    if options.sizes:
        print_sizes(every, options.data, options.work)
        return
    commit, (part, parts) = commit_of(), options.part
    for cell in every[part::parts]:
        lines = read(options.out)  # another process may have added some
        spent = sum(line["cpu_seconds"] for line in lines)
        if cell.key in {(line["data"], line["digest"], line["seed"]) for line in lines}:
            continue
        if spent > 3600 * options.hours:
            print(f"{spent / 3600:.1f} hours are spent: the rest is not run.", file=sys.stderr)
            break
        line = run(cell, cell.world.data(options.data, options.work), options.work, commit)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = {name: line[name] for name in ("recipe", "data", "seed", f"{cell.world.task}.auc", "cpu_seconds")}
        print(json.dumps(shown | {"hours": round((spent + line["cpu_seconds"]) / 3600, 2)}), flush=True)


if __name__ == "__main__":
    main()
