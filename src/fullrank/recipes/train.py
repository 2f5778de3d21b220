"""From prepared data to a trained run, and from a run back to a ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.config_json import dumps, loads
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.diagnostics.live import Probe
from fullrank.evaluation.evaluate import Predictions, predict_split
from fullrank.rankers import Ranker, ranker_name, ranker_named
from fullrank.rankers.load import load_ranker, ranker_config
from fullrank.recipes.validation import EVALUATION_BATCH, Validation, scores_of
from fullrank.training.callbacks import Callback, Result
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train, warmup_rows
from fullrank.training.objectives import MultiTask, ObjectiveConfig
from fullrank.training.origins import Origin
from fullrank.training.run import Run
from fullrank.training.warm_start import WarmStart, warm_start
from fullrank.training.watch import check_watched

__all__ = ["Trained", "load_ranker", "predict", "ranker_class_of", "ranker_config", "train_ranker"]

WARM_START = "warm_start.json"
PROBE_ROWS = 64


@dataclass(frozen=True)
class Trained:
    """A run, its ranker with the final weights, how it ended, and what it began with of another run."""

    run: Run
    ranker: Ranker
    result: Result
    warm: WarmStart | None = None


def train_ranker(
    config: Any,
    data: PreparedData,
    path: Path | str,
    training: TrainConfig,
    *,
    seed: int = 0,
    last_n: int | None = None,
    exclude: tuple[str, ...] = (),
    objective: ObjectiveConfig | MultiTask | None = None,
    warm_from: Run | None = None,
    callbacks: Sequence[Callback] = (),
    probe_every: int = 0,
    how_to_resume: str = "",
) -> Trained:
    """Train the ranker that `config` (a ranker's `Config`) describes on the train split, from where `path` stands.

    Args:
        path: the run's folder. A run with the same settings that is there already is taken up where it stopped, on
            the rows and labels it began with, whatever was appended since.
        seed: of the first weights; `training.seed` is that of the order of rows and of dropout.
        last_n: newest events of each history to read (the schema's `max_length` if None).
        exclude: names of features, histories and tasks the model shall not see.
        objective: what is descended; by the tasks' kinds if None (see `ObjectiveConfig`).
        warm_from: take first weights from this run where keys and names match (see `warm_start`); what was taken is
            kept in `warm_start.json`.
        probe_every: steps between two looks at the effective ranks of the model's points and tables, on some rows of
            the valid split (of the train split if there is none), the first after one step; 0: none (see `Probe`).
    """
    if probe_every < 0:
        raise ValueError(f"Expected probe_every to be a number of steps, or 0 for none, got {probe_every}.")
    inputs = Inputs.of(data.schema, last_n=last_n, exclude=exclude)
    if not isinstance(objective, MultiTask):
        objective = (objective or ObjectiveConfig()).build(inputs.tasks)
    pin, state, transform = data.lineage.pin, data.state, data.transform
    origin = None if warm_from is None else Origin.of(str(warm_from.path), warm_from.weights())
    if (Path(path) / "run.json").exists():
        there = Run.open(path)
        data.lineage.check(there.record.lineage, str(path))
        pin, state, transform = there.record.lineage, there.record.data or state, there.transform()
        now = data.renamed(state) if there.result() else state  # who still learns needs the very rows it began with
        data = data.at(now).pinned(transform)
        if origin and there.record.warm_from and there.record.warm_from.checkpoint == origin.checkpoint:
            origin = there.record.warm_from  # the same one, by whatever path
    has_valid = data.num_rows("valid") > 0
    scores = scores_of(inputs.tasks) if has_valid else None
    check_watched(training, scores)  # before there is a folder that another try would have to match
    warmup_rows(training, data.num_rows("train"))
    ranker = config.build(inputs, transform.num_rows, seed)
    run = Run.create(
        path,
        type_tag=ranker_name(ranker_class_of(config)),
        config=config,
        inputs=inputs,
        num_rows=transform.num_rows,
        seed=seed,
        schema=data.schema,
        transform=transform,
        lineage=pin,
        train=training,
        objective=objective,
        data=state,
        warm_from=origin,
    )
    if warm_from is not None and run.latest_checkpoint() is None:
        report = warm_start(ranker, inputs, transform.id_maps, warm_from, warm_from.weights())
        (run.path / WARM_START).write_text(dumps(report), encoding="utf-8")
    loader = Loader(
        data,
        inputs,
        "train",
        batch_size=training.batch_size,
        seed=training.seed,
        shuffle=True,
        whole_requests=objective.whole_requests,
    )
    if probe_every:
        some = Loader(data, inputs, "valid" if has_valid else "train", batch_size=PROBE_ROWS)
        callbacks = [*callbacks, Probe(next(iter(some.epoch(0))), every=probe_every)]
    result = train(
        ranker,
        loader,
        objective,
        training,
        run,
        validate=Validation(data, inputs) if has_valid else None,
        scores=scores,
        callbacks=callbacks,
        how_to_resume=how_to_resume,
    )
    return Trained(run, ranker, result, _warm(run))


def _warm(run: Run) -> WarmStart | None:
    file = run.path / WARM_START
    return loads(WarmStart, file.read_text(encoding="utf-8"), str(file)) if file.exists() else None


def ranker_class_of(config: Any) -> type[Ranker]:
    """The ranker whose nested `Config` this is."""
    return ranker_named(type(config).__qualname__.split(".")[0].lower())


def predict(run: Run, ranker: Ranker, data: PreparedData, split: str, *, progress: str = "") -> Predictions:
    """The run's predictions of a split of `data`, which may be a later version of what it was trained on."""
    data.lineage.check(run.record.lineage, str(run.path))
    inputs = run.record.inputs
    loader = Loader(data.pinned(run.transform()), inputs, split, batch_size=EVALUATION_BATCH)
    return predict_split(ranker, loader, inputs.tasks, progress=progress)
