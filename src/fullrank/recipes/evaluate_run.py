"""A run on a split: its metrics, by slice and with intervals where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullrank.data.partitions import PreparedData
from fullrank.evaluation.bootstrap import DEFAULT, BootstrapConfig
from fullrank.evaluation.evaluate import Metrics, Predictions, RegressionMetrics
from fullrank.evaluation.ranking import RankingMetrics
from fullrank.evaluation.row_columns import row_columns
from fullrank.evaluation.slice_metrics import SliceTable, slice_metrics
from fullrank.evaluation.slices import Cut, SliceSource, cut_rows
from fullrank.recipes.calibrate import calibrated
from fullrank.recipes.train import load_ranker, predict
from fullrank.training.run import Run


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """`tasks`: the metrics of every task; `ranking`: within requests, of the binary tasks, where requests have several
    rows; `slices`: for each column asked for and each task one table, after one of
    all rows (`by` empty) a task. No slices were asked for: no tables."""

    predictions: Predictions
    tasks: dict[str, Metrics | RegressionMetrics]
    ranking: dict[str, RankingMetrics]
    slices: tuple[SliceTable, ...]


def evaluate_run(
    run: Run,
    data: PreparedData,
    split: str = "test",
    *,
    by: Sequence[str] = (),
    use_calibration: bool = False,
    bootstrap: BootstrapConfig = DEFAULT,
    progress: str = "",
) -> RunEvaluation:
    """Predict a split with a run's newest weights and measure.

    Args:
        data: what the run was trained on, or a later version of it.
        by: what to cut the rows by; see `evaluation.slices`.
        use_calibration: pass the logits through the run's saved calibration first.

    Memory: predictions (`predict_split`) and 120 bytes a row of the largest slice. A million rows take seconds beside
    the prediction itself, three more a task and column asked for.
    """
    source = slice_source(run, data, split)
    cuts = [cut_rows(source, name) for name in by]  # a name that is wrong is told before the work
    predictions = predict(run, load_ranker(run), data, split, progress=progress)
    if data.schema.roles.request:
        predictions = replace(predictions, request_N=row_columns(source.data, split, ["@request"])["@request"])
    if use_calibration:
        predictions = calibrated(run, predictions, source)
    tables: list[SliceTable] = []
    if cuts:  # the intervals of all rows stand beside those of the slices
        cuts = [every_row(predictions), *cuts]
        tables = [slice_metrics(predictions, task, *cut, bootstrap) for task in predictions.tasks for cut in cuts]
    tasks = {task: predictions.task_metrics(task) for task in predictions.tasks}
    ranking = {task: predictions.ranking(task) for task in predictions.tasks if predictions.kind(task) == "binary"}
    return RunEvaluation(
        predictions=predictions,
        tasks=tasks,
        ranking={task: metrics for task, metrics in ranking.items() if metrics},
        slices=tuple(tables),
    )


def every_row(predictions: Predictions) -> tuple[Cut, np.ndarray]:
    """The cut that cuts nothing: one slice, `all`."""
    return Cut(by="", names=("all",), values=(0,)), np.zeros(len(predictions.user_N), dtype=np.int32)


def slice_source(run: Run, data: PreparedData, split: str) -> SliceSource:
    """A split of `data` as the run sees it, to cut it into slices; `trained` has no rows forgotten since."""
    data.lineage.check(run.record.lineage, str(run.path))
    transform = run.transform()
    trained = data.at(data.renamed(run.record.data)) if run.record.data else data
    return SliceSource(data.pinned(transform), split, transform, trained)
