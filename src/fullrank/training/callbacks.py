"""What may look on while a run trains: probes, early reports, counters. The loop knows none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

TaskMetrics = Mapping[str, Mapping[str, float | int]]


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A finished step: `step` from 1, `epoch` from 0, `rows` seen since the beginning, the mean of each named loss over
    the step's micro-batches, their sum `loss`, the gradient's norm before clipping, the learning rate of dense
    parameters `lr`."""

    step: int
    epoch: int
    rows: int
    losses: Mapping[str, float]
    loss: float
    grad_norm: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class Best:
    """The validation that early stopping kept the weights of: the metric (TASK.METRIC), its value, the step, and the
    epoch, from 1, that the step was in."""

    metric: str
    value: float
    step: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended. `finished` is False if it was stopped by `stopped_by` (a signal's name) and can be resumed.

    `ended` says why: `epochs` (all done), `early_stop`, or `signal`. `step`, `epoch` (epochs done) and `rows` are how
    far it went, `loss` is the last step's. A finished run's weights are those of `best` where it went by a metric, else
    the last; `valid` is the validation of these weights, the last before the end: task → metric → value (None:
    undefined). `seconds` is the time spent training, over all sittings.
    """

    finished: bool
    stopped_by: str
    step: int
    epoch: int
    rows: int
    loss: float
    valid: dict[str, dict[str, int | float | None]]
    seconds: float
    ended: Literal["epochs", "early_stop", "signal"] = "epochs"
    best: Best | None = None


class Callback:
    """Override what is wanted. Called after the weights have changed and before a checkpoint is taken.

    Random numbers drawn in a callback do not disturb the run, but what a callback remembers is not in a checkpoint: a
    resumed run calls it again from the checkpoint's step on. An exception ends the run.
    """

    def on_step(self, ranker: nn.Module, report: StepReport) -> Mapping[str, Any] | None:
        """After every step, in train mode. What it returns, if anything, is a line of `metrics.jsonl` beside `step`,
        `epoch`, `rows` and `seconds`."""

    def on_validate(self, ranker: nn.Module, step: int, metrics: TaskMetrics) -> None:
        """After every validation, with the weights that were validated (the average, with `ema_decay`)."""

    def on_end(self, ranker: nn.Module, result: Result) -> None:
        """Once, when the run is finished or stopped."""
