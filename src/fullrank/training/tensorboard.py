"""Scalars for TensorBoard, where it is installed. `metrics.jsonl` has the same and needs nothing."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from torch import nn

from fullrank.training.callbacks import Callback, Result, StepReport, TaskMetrics


class TensorBoardError(RuntimeError):
    """TensorBoard is not installed. The message has the line that installs it."""


class TensorBoard(Callback):
    """Writes events into `folder`: `train/…` (loss, each named loss, norm of the gradient, learning rate) after every
    `every`-th step, of that step alone, and `valid/TASK/METRIC` after every validation; undefined metrics are left out.

    A resumed run goes on in the same folder: what was written after its checkpoint is hidden by what it writes again.
    """

    def __init__(self, folder: Path | str, *, every: int = 10) -> None:
        try:
            self._make: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError as error:
            raise TensorBoardError(
                "Expected the package tensorboard, which is not installed. To install it: "
                "pip install 'fullrank[tensorboard]'. Without it, the same figures are in the run's metrics.jsonl."
            ) from error
        self._folder, self._every, self._writer = folder, every, None

    def on_step(self, ranker: nn.Module, report: StepReport) -> None:
        writer = self._writer_from(report.step)
        if report.step % self._every:
            return
        scalars = {"loss": report.loss, "grad_norm": report.grad_norm, "lr": report.lr}
        scalars |= {f"loss/{name}": value for name, value in report.losses.items()}
        for name, value in scalars.items():
            writer.add_scalar(f"train/{name}", value, report.step)

    def on_validate(self, ranker: nn.Module, step: int, metrics: TaskMetrics) -> None:
        writer = self._writer_from(step + 1)  # the step before it stays as it was written
        for task, values in metrics.items():
            for name, value in values.items():
                if value is not None and math.isfinite(value):
                    writer.add_scalar(f"valid/{task}/{name}", value, step)

    def on_end(self, ranker: nn.Module, result: Result) -> None:
        if self._writer is not None:
            self._writer.close()

    def _writer_from(self, step: int) -> Any:
        """The writer, made at its first use: a folder is there only if something was trained, and what an earlier
        sitting wrote from `step` on is hidden."""
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)
        return self._writer
