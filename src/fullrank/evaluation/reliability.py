"""Does a predicted probability mean what it says? Rows in bins of equal count: mean prediction against mean label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Reliability:
    """One entry a bin, ascending by prediction. `weight` is the number of rows a bin stands for."""

    predicted: np.ndarray
    observed: np.ndarray
    weight: np.ndarray


def compute_reliability(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None, bins: int = 12
) -> Reliability:
    """Mean predicted probability and mean label in `bins` bins of (nearly) equal row count.

    Rows of one prediction always share a bin, so a constant model has one. `weights` (1 / sample_rate) restore the
    rows a log has dropped. Not a test: with few rows a bin, chance alone moves points by sqrt(p (1 - p) / n).
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if len(labels) == 0:
        empty = np.empty(0)
        return Reliability(empty, empty, empty)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    edges = np.unique(np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, probabilities, side="right")
    weight = np.bincount(bin_of, weights, minlength=len(edges) + 1)
    used = weight > 0
    predicted = np.bincount(bin_of, weights * probabilities, minlength=len(edges) + 1)[used] / weight[used]
    observed = np.bincount(bin_of, weights * labels, minlength=len(edges) + 1)[used] / weight[used]
    return Reliability(predicted, observed, weight[used])


def plot_reliability(curves: dict[str, Reliability], ax: Axes | None = None) -> Axes:
    """One line a model; on the diagonal a prediction means what it says."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    top = max((float(max(c.predicted.max(), c.observed.max())) for c in curves.values() if len(c.weight)), default=1.0)
    ax.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1, label="means what it says")
    for name, curve in curves.items():
        ax.plot(curve.predicted, curve.observed, marker="o", markersize=3, linewidth=1.2, label=name)
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("observed rate")
    ax.legend(fontsize=8)
    return ax
