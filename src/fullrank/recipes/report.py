"""All that a report of a run says, as data: what it was trained on, how well it does and where it does worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.profile import DataProfile, compute_profile
from fullrank.evaluation.bootstrap import DEFAULT, BootstrapConfig, Interval
from fullrank.evaluation.evaluate import Metrics, Predictions, RegressionMetrics, predict_split
from fullrank.evaluation.slice_metrics import SliceTable
from fullrank.evaluation.slices import SliceSource
from fullrank.recipes.calibrate import FILE, calibrated
from fullrank.recipes.evaluate_run import evaluate_run, slice_source
from fullrank.recipes.popularity import Popularity
from fullrank.recipes.train import EVALUATION_BATCH
from fullrank.training.run import Run

FEW_VALUES = 30
MOST_FEATURES = 4


@dataclass(frozen=True, kw_only=True)
class WeakSlice:
    """A slice whose `metric` is credibly worse than that of all rows (`reference`): the whole 90 % interval of its AUC
    is below, or that of its PCOC further from 1 (in logarithms) on one side. `loss` is by how much (for PCOC: in
    logarithms), times the square root of the slice's share of rows: what a worry about it is worth (our choice)."""

    task: str
    by: str
    slice: str
    users: int
    rows: int
    metric: str
    value: Interval
    reference: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """`after` are the predictions through the run's saved calibration, None if it has none. `popularity`: the metrics
    of the item's own rate, whoever asks, on the same rows (empty where the log has no item, or an item several ids)."""

    run: Run
    data: str
    split: str
    profile: DataProfile
    predictions: Predictions
    after: Predictions | None
    tasks: dict[str, Metrics | RegressionMetrics]
    popularity: dict[str, Metrics]
    slices: tuple[SliceTable, ...]
    weak: tuple[WeakSlice, ...]


def compute_report(
    run: Run,
    data: PreparedData,
    split: str = "test",
    *,
    by: Sequence[str] | None = None,
    bootstrap: BootstrapConfig = DEFAULT,
    progress: str = "",
) -> Report:
    """Measure a run on a split and profile the data it was trained on.

    Args:
        by: what to cut the rows by (`evaluation.slices`); `slices_worth_a_look` if None.

    Slices with fewer than 20 users are not in it, and no key of a user, request or impression is.
    """
    source = slice_source(run, data, split)
    profile = compute_profile(source.trained, source.transform)
    by = slices_worth_a_look(data, profile) if by is None else by
    found = evaluate_run(run, data, split, by=by, bootstrap=bootstrap, progress=progress)
    has_calibration = (run.path / FILE).exists()
    return Report(
        run=run,
        data=str(data.folder),
        split=split,
        profile=profile,
        predictions=found.predictions,
        after=calibrated(run, found.predictions, source) if has_calibration else None,
        tasks=found.tasks,
        popularity=_popularity(run, source),
        slices=found.slices,
        weak=weak_slices(found.slices),
    )


def slices_worth_a_look(data: PreparedData, profile: DataProfile) -> tuple[str, ...]:
    """Day, what is new, scenario, position, the lengths of histories, and the features with few values (our choice:
    up to four categorical ones with 2 to 30)."""
    schema, roles = data.schema, data.schema.roles.columns()
    wanted = [name for name, role in (("day", "time"), ("cold_user", "user"), ("cold_item", "item")) if role in roles]
    wanted += [role for role in ("scenario", "position") if role in roles]
    wanted += [f"history.{history.name}" for history in schema.histories]
    few = [f for f in profile.features if f.kind == "categorical" and 2 <= f.values <= FEW_VALUES]
    wanted += [f.name for f in few[:MOST_FEATURES]]
    return tuple(dict.fromkeys(wanted))


def weak_slices(tables: Sequence[SliceTable], most: int = 12) -> tuple[WeakSlice, ...]:
    """The slices with the largest credible loss; see `WeakSlice`. Each table is judged against the one of all rows of
    its task. Among many slices one in twenty looks weak by chance alone."""
    whole = {table.task: table.rows[0] for table in tables if not table.by and table.rows}
    found = []
    for table in tables:
        if not table.by or table.task not in whole:
            continue
        everything = whole[table.task].metrics
        if not isinstance(everything, Metrics):
            continue
        for row in table.rows:
            for metric, reference in (("auc", everything.auc), ("pcoc", everything.pcoc)):
                value = row.intervals[metric]
                share = row.metrics.rows / everything.rows
                if metric == "auc":
                    outside, loss = value.high < reference, reference - value.value
                elif value.value > 0 and reference > 0:
                    far = max(reference, 1 / reference)
                    outside = value.low > far or value.high < 1 / far
                    loss = abs(np.log(value.value)) - np.log(far)
                else:
                    continue
                if share >= 1 or not outside or not loss > 0:
                    continue
                found.append(
                    WeakSlice(
                        task=table.task,
                        by=table.by,
                        slice=row.slice,
                        users=row.users,
                        rows=row.metrics.rows,
                        metric=metric,
                        value=value,
                        reference=reference,
                        loss=float(loss * share**0.5),
                    )
                )
    return tuple(sorted(found, key=lambda weak: -weak.loss)[:most])


def _popularity(run: Run, source: SliceSource) -> dict[str, Metrics]:
    schema = source.data.schema
    tasks = tuple(task.name for task in run.record.inputs.tasks if task.kind == "binary")
    if not schema.roles.item or schema.key_space("item").hashes > 1 or not tasks:
        return {}
    inputs = Popularity.inputs(source.data, tasks)
    loader = Loader(source.data, inputs, source.split, batch_size=EVALUATION_BATCH)
    popularity = Popularity.fit(source.trained.pinned(source.transform), tasks)
    predicted = predict_split(popularity, loader, inputs.tasks)
    return {task: predicted.metrics(task) for task in tasks}
