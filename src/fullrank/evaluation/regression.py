"""Errors of predicted numbers: a price, a duration, a value."""

from __future__ import annotations

import numpy as np

from fullrank.evaluation.checks import checked_weights


def mse(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean squared error ``Σ_i w_i (p_i - y_i)² / Σ_i w_i``, in the label's unit squared; nan without (weighing) rows.

    A few large labels decide it: look at `mae` too where their distribution has a long tail.
    """
    labels, predictions, weights = _checked_numbers(labels, predictions, weights)
    return _mean((predictions - labels) ** 2, weights)


def mae(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean absolute error ``Σ_i w_i |p_i - y_i| / Σ_i w_i``, in the label's unit; nan without (weighing) rows.

    The best constant is the median: not for money that is to add up, whose mean matters.
    """
    labels, predictions, weights = _checked_numbers(labels, predictions, weights)
    return _mean(np.abs(predictions - labels), weights)


def r2(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The share of the labels' variance that the predictions explain: ``1 - mse / variance``, at most 1.

    0 is as good as the mean of these very labels, negative is worse; nan where all labels are equal. Not comparable
    between sets of rows: their variances differ.
    """
    labels, predictions, weights = _checked_numbers(labels, predictions, weights)
    variance = _mean((labels - _mean(labels, weights)) ** 2, weights)
    return 1.0 - _mean((predictions - labels) ** 2, weights) / variance if variance > 0 else float("nan")


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    whole = weights.sum()
    return float((weights * values).sum() / whole) if whole else float("nan")


def _checked_numbers(
    labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != predictions.shape:
        shapes = f"{labels.shape} and {predictions.shape}"
        raise ValueError(f"Expected one label and one prediction a row, got shapes {shapes}.")
    for what, values in (("label", labels), ("prediction", predictions)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise ValueError(f"Expected a finite {what} for every row, got {values[wrong[0]]} in row {wrong[0]}.")
    return labels, predictions, checked_weights(weights, len(labels))
