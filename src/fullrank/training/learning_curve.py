"""How a run learned: losses and validations of its `metrics.jsonl` against the rows it had seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LearningCurve:
    """Training loss (summed over tasks) at `rows`, and the validation metric of one task at `valid_rows`."""

    rows: np.ndarray
    loss: np.ndarray
    valid_rows: np.ndarray
    valid: np.ndarray


def compute_learning_curve(run: Path, task: str, metric: str = "auc") -> LearningCurve:
    """Read the curve of the run in folder `run`. An undefined metric (null) is NaN."""
    with (run / "metrics.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]  # of a run at work, or killed: half a line
    losses = [(line["rows"], line["loss"]) for line in lines if "loss" in line]
    valid = [(line["rows"], line["valid"][task][metric]) for line in lines if "valid" in line]
    rows, loss = np.array(losses, dtype=np.float64).reshape(-1, 2).T
    valid_rows, values = np.array(valid, dtype=np.float64).reshape(-1, 2).T
    return LearningCurve(rows, loss, valid_rows, values)


def plot_learning_curves(
    curves: dict[str, LearningCurve], metric: str, axes: tuple[Axes, Axes] | None = None
) -> tuple[Axes, Axes]:
    """Training loss on the left, the validation metric on the right; one line a run."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if axes is None:
        import matplotlib.pyplot as plt

        left, right = plt.subplots(1, 2, figsize=(9, 3.2))[1]
    else:
        left, right = axes
    for name, curve in curves.items():
        left.plot(curve.rows, curve.loss, linewidth=1.2, label=name)
        right.plot(curve.valid_rows, curve.valid, marker="o", markersize=3, linewidth=1.2, label=name)
    left.set_ylabel("training loss")
    right.set_ylabel(f"validation {metric}")
    for ax in (left, right):
        ax.set_xlabel("rows seen")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.legend(fontsize=8)
    return left, right
