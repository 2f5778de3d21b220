"""How a ranker is judged while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from torch import nn

from fullrank.data.inputs import Inputs, TaskInput
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.evaluation.evaluate import Metrics, RegressionMetrics, evaluate
from fullrank.training.watch import Better

EVALUATION_BATCH = 8192

# Of the metrics of a task, those that say good or bad by themselves: a count does not, and neither does pcoc, which is
# best at 1.
BETTER: dict[str, Better] = {
    "auc": "higher",
    "user_auc": "higher",
    "log_loss": "lower",
    "normalised_entropy": "lower",
    "ece": "lower",
    "brier": "lower",
    "mse": "lower",
    "mae": "lower",
    "r2": "higher",
}


def scores_of(tasks: Sequence[TaskInput]) -> dict[str, Better]:
    """Every TASK.METRIC that training can go by, and which way it is better."""
    return {
        f"{task.name}.{metric.name}": BETTER[metric.name]
        for task in tasks
        for metric in fields(RegressionMetrics if task.kind == "regression" else Metrics)
        if metric.name in BETTER
    }


class Validation:
    """The metrics of every task on the rows of the valid split, at least one: ranker → {task: {metric: value}}."""

    def __init__(self, data: PreparedData, inputs: Inputs) -> None:
        self._tasks = inputs.tasks
        self._loader = Loader(data, inputs, "valid", batch_size=EVALUATION_BATCH)

    def __call__(self, ranker: nn.Module) -> dict[str, dict[str, float | int]]:
        return {task: asdict(metrics) for task, metrics in evaluate(ranker, self._loader, self._tasks).items()}
