"""Ten days with drifting taste and late conversions, day by day: what is it worth to go on learning, and to wait?

    python benchmarks/daily_loop.py [--seeds 5] [--rows 200000]

Every day's log is appended at its end, after the late conversions that came during it. Each day is predicted before it
is learned, and judged by the labels as they are when all windows have closed:

    frozen     trained on the first day alone, with all its conversions known
    masked     goes on every day; a conversion counts when its window is closed
    negative   goes on every day; what has not converted by the day's end is learned as a negative, for good

A line of JSON a seed, arm, task and day, then one a seed with the means over the days from the third on (the first on
which `masked` has learned conversions). Targets, over all seeds: `masked` has a lower log-loss than `frozen` in both
tasks, and for conversion a lower one than `negative`, and a PCOC nearer to 1. The exit code is 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fullrank.data.corrections import append_labels
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import LogChunk
from fullrank.data.splits import AllTrain
from fullrank.evaluation.evaluate import predict_split
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.daily import continue_run
from fullrank.recipes.train import load_ranker, train_ranker
from fullrank.schema import Schema
from fullrank.training.config import TrainConfig

DAY = 86_400
WORLD = SimulatorConfig(
    users=5_000, ads=600, campaigns=60, days=10, drift=0.2, mean_delay=10 * 3600, attribution_window=DAY,
    click_logit=-1.2, conversion_logit=-0.8, explore=0.5,
)  # fmt: skip
RANKER = DCNv2.Config(
    embedding=EmbeddingConfig(width=8, init_std=0.1, optimizer=TableOptimizer(semantics="lazy", lr=2e-3)),
    num_cross_layers=2,
    hidden=(64, 32),
)
TRAINING = TrainConfig(epochs=2, batch_size=256, lr=1e-3, validate_every_epochs=None)
FIRST_JUDGED = 2
ARMS = ("frozen", "masked", "negative")
SHOWN = ("log_loss", "pcoc", "auc")


class Meant:
    """A log under another schema."""

    def __init__(self, log: Any, schema: Schema) -> None:
        self.name, self.schema, self.events, self._log = log.name, schema, log.events, log

    def chunks(self) -> Iterator[LogChunk]:
        return self._log.chunks()

    def fingerprint(self) -> str:
        return self._log.fingerprint()


class Came(Meant):
    """The conversions of earlier days' rows that came within `[start, end)`, in seconds."""

    def __init__(self, log: SimulatedLog, schema: Schema, days: range, start: int, end: int) -> None:
        super().__init__(log, schema)
        self._days, self._start, self._end = days, start, end

    def chunks(self) -> Iterator[LogChunk]:
        for day in self._days:
            for chunk in self._log.late_labels(day).chunks():
                time = chunk.records.column("time").to_numpy()
                came = (time >= self._start) & (time < self._end)
                yield LogChunk(chunk.records.filter(pa.array(came)), self.name, 0)

    def fingerprint(self) -> str:
        return f"{self._log.fingerprint()} came from {self._start} to {self._end}"


def at_once(schema: Schema) -> Schema:
    """The schema of who takes what has not converted yet for a negative."""
    return replace(schema, tasks=tuple(replace(task, window=0) for task in schema.tasks))


def prepared(log: SimulatedLog, schema: Schema, folder: Path, days: int) -> PreparedData:
    """Days as they came, then everything that was still to come."""
    last = log.config.days - 1
    first = Meant(log.day(0), schema)
    prepare(first, folder, split=AllTrain())
    for day in range(1, days):
        append_labels(Came(log, schema, range(max(day - 2, 0), day), log.end_of(day - 1), log.end_of(day)), folder)
        prepare(Meant(log.day(day), schema), folder, append=True)
    close = log.end_of(days - 1) + log.config.attribution_window
    rest = Came(log, schema, range(max(days - 2, 0), min(days, last + 1)), log.end_of(days - 1), close)
    append_labels(rest, folder, as_of=close * 1_000_000)
    return PreparedData.open(folder)


def frozen(log: SimulatedLog, days: PreparedData, folder: Path, training: TrainConfig) -> Iterator[dict[str, Any]]:
    """The first day's ranker on every day after."""
    first = prepared(log, log.schema, folder / "first", 1)
    run = train_ranker(RANKER, first, folder / "frozen", training, seed=log.config.seed, last_n=10).run
    ranker, inputs, seen = load_ranker(run), run.record.inputs, days.pinned(run.transform())
    rows = [index for index, partition in enumerate(days.partitions) if partition.entry.kind == "rows"]
    for day, index in enumerate(rows[1:], start=1):
        loader = Loader(seen, inputs, "train", batch_size=8192, partitions=(index,))
        predictions = predict_split(ranker, loader, inputs.tasks)
        for task in inputs.task_names:
            metrics = predictions.metrics(task)
            yield {"task": task, "day": day, **{name: getattr(metrics, name) for name in SHOWN}}


def daily(log: SimulatedLog, folder: Path, name: str, training: TrainConfig) -> Iterator[dict[str, Any]]:
    """The first day's ranker, gone on with every day; `folder/NAME-data` holds all days."""
    schema = log.schema if name == "masked" else at_once(log.schema)
    prepare(Meant(log.day(0), schema), folder / f"{name}-first", split=AllTrain())
    first = PreparedData.open(folder / f"{name}-first")
    run = train_ranker(RANKER, first, folder / name, training, seed=log.config.seed, last_n=10).run
    done = continue_run(run, PreparedData.open(folder / f"{name}-data"), folder / f"{name}-on")
    tasks = len(run.record.inputs.task_names)
    for number, line in enumerate(done.days):
        yield {"task": line["task"], "day": 1 + number // tasks, **{shown: line[shown] for shown in SHOWN}}


def one_seed(seed: int, rows: int) -> list[dict[str, Any]]:
    log = SimulatedLog(replace(WORLD, rows=rows, seed=seed))
    training, lines = replace(TRAINING, seed=seed), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for arm in ("masked", "negative"):
            schema = log.schema if arm == "masked" else at_once(log.schema)
            data = prepared(log, schema, folder / f"{arm}-data", log.config.days)
            if arm == "masked":
                lines += [{"seed": seed, "arm": "frozen", **line} for line in frozen(log, data, folder, training)]
            lines += [{"seed": seed, "arm": arm, **line} for line in daily(log, folder, arm, training)]
    return lines


def means(lines: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per `ARM TASK`: mean log-loss, mean PCOC and mean |ln PCOC| over the days that are judged."""
    found = {}
    for arm in ARMS:
        for task in ("click", "conversion"):
            judged = [r for r in lines if (r["arm"], r["task"]) == (arm, task) and r["day"] >= FIRST_JUDGED]
            pcoc = np.array([r["pcoc"] for r in judged])
            found[f"{arm} {task}"] = {
                "log_loss": float(np.mean([r["log_loss"] for r in judged])),
                "pcoc": float(pcoc.mean()),
                "miscalibration": float(np.abs(np.log(pcoc)).mean()),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    every: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        lines = one_seed(seed, args.rows)
        every += lines
        for line in lines:
            print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}), flush=True)
        for name, values in means(lines).items():
            arm, task = name.split()
            mean = {k: round(v, 5) for k, v in values.items()}
            print(json.dumps({"seed": seed, "arm": arm, "task": task, "day": "mean", **mean}), flush=True)
    found = means(every)
    missed = [
        f"{task}: masked does not beat {other} in {what}"
        for task, other, what in (
            ("click", "frozen", "log_loss"),
            ("conversion", "frozen", "log_loss"),
            ("conversion", "negative", "log_loss"),
            ("conversion", "negative", "miscalibration"),
        )
        if not found[f"masked {task}"][what] < found[f"{other} {task}"][what]
    ]
    for line in missed:
        print(line, file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
