"""What compact tables cost a run: the same rows predicted with tables kept in fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fullrank.data.partitions import PreparedData
from fullrank.evaluation.evaluate import Metrics, Predictions, RegressionMetrics
from fullrank.recipes.train import predict
from fullrank.serving.tables import Storage, load_for_serving, table_bytes
from fullrank.training.run import Run


@dataclass(frozen=True, kw_only=True)
class TablesChange:
    """One task with the tables kept as `tables`. `change`: the AUC (of a regression task: the MSE) less that with
    tables in float32. `largest_logit_change`: the largest |logit - logit| of a row, with a known label or not."""

    tables: Storage
    table_bytes: int
    task: str
    metrics: Metrics | RegressionMetrics
    change: float
    largest_logit_change: float


def tables_change(
    run: Run,
    data: PreparedData,
    split: str,
    whole: Predictions,
    storages: Sequence[Storage] = ("bfloat16", "int8"),
    *,
    progress: bool = False,
) -> tuple[TablesChange, ...]:
    """Every task with tables in float32, then with each of `storages`.

    Args:
        whole: the run's own predictions of the split (`predict`), not calibrated.
        progress: show a bar a pass on a terminal.

    A pass over the split for each of `storages`; memory is that of one of them at a time, beside the predictions.
    """
    found = []
    for storage in storages:
        ranker = load_for_serving(run, storage)
        if not found:
            in_float32 = sum(4 * arena.num_rows * arena.width for arena in ranker.tables.plan.arenas)
            found += _rows("float32", in_float32, whole, whole)
        predictions = predict(run, ranker, data, split, progress=f"{split}, {storage}" if progress else "")
        found += _rows(storage, table_bytes(ranker), predictions, whole)
    return tuple(found)


def _rows(tables: Storage, size: int, predictions: Predictions, whole: Predictions) -> list[TablesChange]:
    found = []
    for place, task in enumerate(predictions.tasks):
        metrics = predictions.task_metrics(task)
        largest = np.abs(predictions.logits_NK[:, place] - whole.logits_NK[:, place]).max(initial=0.0)
        found.append(
            TablesChange(
                tables=tables,
                table_bytes=size,
                task=task,
                metrics=metrics,
                change=_first(metrics) - _first(whole.task_metrics(task)),
                largest_logit_change=float(largest),
            )
        )
    return found


def _first(metrics: Metrics | RegressionMetrics) -> float:
    return metrics.auc if isinstance(metrics, Metrics) else metrics.mse
