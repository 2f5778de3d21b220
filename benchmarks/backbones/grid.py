"""Backbones on the same rows: quality, ranks at the end, size and speed; a line of JSON for each (recipe, data, seed).

    python benchmarks/backbones/grid.py --data FOLDER --work FOLDER [--figures core ffn ...] [--hours 10] [--sizes]

Lines are appended to benchmarks/results/backbones.jsonl, and what is there is not run again, so that a grid survives
being stopped; the processor's hours spent are printed. `--sizes` prints parameters and FLOPs a row of every recipe and
trains nothing. What is in no line of the file has not been run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from worlds import SIMULATED, SMALL, WORLDS, World, found_of_truth

import recipes
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics import effective_rank, point_ranks
from fullrank.evaluation.metrics import auc, log_loss
from fullrank.kernels.bodies import bodies
from fullrank.rankers import Ranker
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.callbacks import Callback, StepReport
from fullrank.training.config import TrainConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import commit  # in the folder above

LINES = Path(__file__).resolve().parents[1] / "results" / "backbones.jsonl"
BATCH, PROBED = 1024, 512
SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class Cell:
    figure: str
    recipe: str
    config: Any
    world: World
    seed: int
    exclude: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.figure, self.recipe, self.world.name, self.seed


def cells(figures: list[str]) -> Iterator[Cell]:
    """Seed by seed, so that a grid that is stopped has all recipes of the seeds it has."""
    movielens, simulated, frappe = (WORLDS[name] for name in ("movielens-1m", "simulated", "frappe"))
    of_fields = {name: recipes.CORE[name] for name in recipes.OF_FIELDS}
    named: dict[str, list[tuple[World, dict[str, Any], int]]] = {
        "core": [(movielens, recipes.CORE, SEEDS), (simulated, recipes.CORE, SEEDS), (frappe, of_fields, SEEDS)],
        "ffn": [(movielens, recipes.FFN, SEEDS), (simulated, recipes.FFN, SEEDS)],
        "mixing": [(movielens, recipes.MIXING, SEEDS), (simulated, recipes.MIXING, SEEDS)],
        "tokens": [(movielens, recipes.TOKENS, SEEDS)],
        "parts": [(movielens, recipes.PARTS, SEEDS)],
        "streams": [(movielens, recipes.STREAMS, SEEDS), (simulated, recipes.STREAMS, SEEDS)],
        "depth": [(movielens, recipes.DEPTHS, 3)],
        "small": [(SMALL, recipes.CORE, 1)],
    }
    for figure in figures:
        for world, every, seeds in named[figure]:
            for seed in range(seeds):
                for recipe, config in every.items():
                    yield Cell(figure=figure, recipe=recipe, config=config, world=world, seed=seed)


class Clock(Callback):
    """Seconds between steps."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step(self, ranker: nn.Module, report: StepReport) -> None:
        self.at.append(time.perf_counter())


def size_of(ranker: Ranker, data: PreparedData) -> dict[str, Any]:
    """Dense parameters, and the FLOPs of a training step a row (three times forward) on 64 rows, by torch's counter."""
    batch = next(iter(Loader(data, ranker.inputs, "test", batch_size=64).epoch(0)))
    with bodies("reference"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        ranker(batch)
    dense = sum(parameter.numel() for parameter in ranker.dense_parameters())
    return {"dense_parameters": dense, "mflop_a_row": round(3 * counter.get_total_flops() / batch.num_rows / 1e6, 3)}


@torch.no_grad()
def ranks_of(ranker: Ranker, data: PreparedData) -> dict[str, Any]:
    """Effective ranks of the taps on test rows, and of the events of a stream (`events…`), by point and form."""
    batch = next(iter(Loader(data, ranker.inputs, "test", batch_size=PROBED).epoch(0)))
    taps: dict[str, torch.Tensor] = {}
    ranker.eval()(batch, taps=taps)
    found: dict[str, Any] = {}
    for one in point_ranks(taps):
        found.setdefault(one.point, {})[one.form] = [round(one.mean, 3), one.most]
    lengths = taps["events.length"].tolist() if "events.length" in taps else []
    known = [(row, length) for row, length in enumerate(lengths) if length >= 2]
    for name, x in taps.items():
        if name.startswith("events") and name != "events.length" and known:
            each = [float(effective_rank(x[row, :length])) for row, length in known]
            found[name] = {"sample": [round(float(np.mean(each)), 3), min(max(lengths), x.shape[2])]}
    return found


def run(cell: Cell, data: PreparedData, work: Path) -> dict[str, Any]:
    world = cell.world
    folder = work / "runs" / f"{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    training = TrainConfig(
        epochs=world.epochs,
        batch_size=BATCH,
        seed=cell.seed,
        checkpoint_every_steps=None,
        early_stop=f"{world.task}.auc",
        patience=1,
    )
    clock, started = Clock(), time.process_time()
    options: dict[str, Any] = {"seed": cell.seed, "last_n": world.last_n, "exclude": (*world.exclude, *cell.exclude)}
    made = train_ranker(cell.config, data, folder, training, callbacks=[clock], **options)
    told = predict(made.run, made.ranker, data, "test")
    line: dict[str, Any] = dict(zip(("figure", "recipe", "data", "seed"), cell.key, strict=True))
    for column, task in enumerate(made.ranker.inputs.task_names):
        known = told.known_NK[:, column]
        labels, logits = told.labels_NK[known, column], told.logits_NK[known, column]
        line |= {f"{task}.auc": round(auc(labels, logits), 6), f"{task}.log_loss": round(log_loss(labels, logits), 6)}
        if world in (SIMULATED, SMALL):
            line |= {name: round(value, 4) for name, value in found_of_truth(world, labels, logits).items()}
    line |= size_of(made.ranker, data)
    line |= {"rows_a_second": round(BATCH / float(np.median(np.diff(clock.at))))}
    line |= {"best_epoch": made.result.best.epoch if made.result.best else None, "ranks": ranks_of(made.ranker, data)}
    shutil.rmtree(folder, ignore_errors=True)
    return line | {"cpu_seconds": round(time.process_time() - started), "commit": commit()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    figures = ["core", "ffn", "mixing", "tokens", "parts", "streams", "depth"]
    parser.add_argument("--data", type=Path, required=True, help="public data sets")
    parser.add_argument("--work", type=Path, required=True, help="prepared data and the run at work")
    parser.add_argument("--figures", nargs="+", choices=[*figures, "small"], default=figures)
    parser.add_argument("--hours", type=float, default=10.0, help="of the processor, all lines together")
    parser.add_argument("--out", type=Path, default=LINES)
    parser.add_argument("--sizes", action="store_true")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    there = {(line["figure"], line["recipe"], line["data"], line["seed"]) for line in lines}
    spent = sum(line["cpu_seconds"] for line in lines)
    for cell in cells(options.figures):
        data = cell.world.data(options.data, options.work)
        if options.sizes:
            if cell.seed == 0:
                inputs = Inputs.of(data.schema, last_n=cell.world.last_n, exclude=cell.world.exclude)
                num_rows = {name: id_map.num_rows for name, id_map in data.transform.id_maps.items()}
                print(*cell.key[:3], size_of(cell.config.build(inputs, num_rows, 0).eval(), data))
            continue
        if cell.key in there:
            continue
        if spent > 3600 * options.hours:
            print(f"{spent / 3600:.1f} hours are spent: the rest is not run.", file=sys.stderr)
            break
        line = run(cell, data, options.work)
        spent += line["cpu_seconds"]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shown = {name: line[name] for name in ("recipe", "data", "seed", f"{cell.world.task}.auc", "cpu_seconds")}
        print(json.dumps(shown | {"hours": round(spent / 3600, 2)}), flush=True)


if __name__ == "__main__":
    main()
