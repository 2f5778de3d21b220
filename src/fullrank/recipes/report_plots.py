"""The figures of a report: each drawn from what `compute_report` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.profile import DataProfile
from fullrank.evaluation.binary import sigmoid
from fullrank.evaluation.checks import undo_sampling
from fullrank.evaluation.evaluate import Predictions
from fullrank.evaluation.reliability import Reliability, compute_reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def probabilities(predictions: Predictions, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, probability, weight) of the rows of a binary task whose label is known."""
    column = predictions.column(task)
    known = predictions.known_NK[:, column]
    weight = undo_sampling(predictions.sample_rate_N[known], int(known.sum()))
    return predictions.labels_NK[known, column], sigmoid(predictions.logits_NK[known, column]), weight


def reliability_of(predictions: Predictions, task: str) -> Reliability:
    """The reliability curve of a binary task, as on the traffic before sampling."""
    return compute_reliability(*probabilities(predictions, task))


def plot_days(profile: DataProfile, tasks: Sequence[str], rows: Axes, rates: Axes) -> None:
    """Rows a day on one axis; each binary task's rate of positives a day, of labels known, on the other: empty without
    such a task."""
    from matplotlib.dates import AutoDateLocator, DateFormatter

    days = profile.day_D.astype("datetime64[D]")
    rows.bar(days.astype("O"), profile.rows_D, color="0.7")
    rows.set_ylabel("rows a day")
    for task in tasks:
        rates.plot(days.astype("O"), profile.mean_D[task], marker="o", markersize=3, linewidth=1.2, label=task)
    rates.set_ylabel("share of positives")
    rates.set_ylim(bottom=0)
    if tasks:
        rates.legend(fontsize=8)
    else:
        rates.set_axis_off()
    for ax in (rows, rates):
        ax.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=6, interval_multiples=False))
        ax.xaxis.set_major_formatter(DateFormatter("%Y-%m-%d"))
        ax.tick_params(axis="x", labelrotation=30)


def plot_scores(predictions: Predictions, task: str, ax: Axes) -> Axes:
    """Predicted probabilities of positives and of negatives, each as a density over log-odds."""
    label, probability, weight = probabilities(predictions, task)
    if len(label):
        odds = np.log(np.clip(probability, 1e-7, 1 - 1e-7) / np.clip(1 - probability, 1e-7, 1))
        edges = np.linspace(odds.min() - 1e-6, odds.max() + 1e-6, 41)
        for name, chosen, colour in (("negatives", label == 0, "0.6"), ("positives", label > 0, "tab:orange")):
            if chosen.any():
                style = {"histtype": "stepfilled", "alpha": 0.5}
                ax.hist(odds[chosen], edges, weights=weight[chosen], density=True, color=colour, label=name, **style)
        places = np.linspace(edges[0], edges[-1], 7)[1:-1]
        ax.set_xticks(places, [f"{1 / (1 + np.exp(-place)):.3g}" for place in places])
        ax.legend(fontsize=8)
    ax.set_yticks([])
    ax.set_xlabel("predicted probability (log-odds scale)")
    return ax


def two_panels() -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure for a page, without a screen: its panels side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    return figure, tuple(axes)
