"""A progress bar of rows: rate, loss, last validation, time left. Silent where standard error is no terminal."""

from __future__ import annotations

import sys

from fullrank.training.callbacks import TaskMetrics


class Progress:
    """`total` rows in all epochs, of which `done` were done in earlier sittings."""

    def __init__(self, *, total: int, done: int) -> None:
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
        self._loss = self._valid = ""

    def step(self, rows: int, loss: float) -> None:
        """`rows` more, and the mean loss of the step."""
        self._loss = f"loss {loss:.4f}"
        self._bar.set_postfix_str(self._loss + self._valid, refresh=False)
        self._bar.update(rows)

    def validated(self, metrics: TaskMetrics) -> None:
        """Show each task's AUC from now on."""
        shown = [f"{task} {values['auc']:.4f}" for task, values in metrics.items() if "auc" in values]
        self._valid = f", auc {' '.join(shown)}" if shown else ""
        self._bar.set_postfix_str(self._loss + self._valid)

    def close(self) -> None:
        self._bar.close()
