"""A progress bar of rows: rate, loss, last validation, time left. Silent where standard error is no terminal."""

from __future__ import annotations

import sys

from fullrank.training.callbacks import Result, TaskMetrics
from fullrank.training.watch import Watch


class Progress:
    """`total` rows in all epochs, of which `done` were done in earlier sittings. `metric`: the TASK.METRIC to show of a
    validation, with its best value so far; each task's AUC if empty."""

    def __init__(self, *, total: int, done: int, metric: str = "") -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            initial=done,
            unit="row",
            unit_scale=True,
            desc="train",
            disable=None,
            file=sys.stderr,
            dynamic_ncols=True,
        )
        self._metric = metric
        self._loss = self._valid = ""

    def step(self, rows: int, loss: float) -> None:
        """`rows` more, and the mean loss of the step."""
        self._loss = f"loss {loss:.4f}"
        self._bar.set_postfix_str(self._loss + self._valid, refresh=False)
        self._bar.update(rows)

    def validated(self, metrics: TaskMetrics, best: Watch) -> None:
        """Show the validation from now on."""
        if self._metric:
            task, _, name = self._metric.rpartition(".")
            self._valid = f", {self._metric} {metrics[task][name]:.4f} (best {best.best:.4f}, epoch {best.epoch})"
        else:
            shown = [f"{task} {values['auc']:.4f}" for task, values in metrics.items() if "auc" in values]
            self._valid = f", auc {' '.join(shown)}" if shown else ""
        self._bar.set_postfix_str(self._loss + self._valid)

    def ended(self, result: Result) -> None:
        """Say for good which weights were kept, and if the run stopped early."""
        if result.best is not None:
            early = "stopped early, " if result.ended == "early_stop" else ""
            kept = f"kept epoch {result.best.epoch}, {result.best.metric} {result.best.value:.4f}"
            self._bar.set_postfix_str(f"{self._loss}, {early}{kept}")

    def close(self) -> None:
        self._bar.close()
