"""Metrics of predicted probabilities, from logits: proper scores and calibration, as on the traffic before sampling."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fullrank.evaluation.checks import checked, run_starts, undo_sampling

Binning = Literal["equal_mass", "equal_width"]


def log_loss(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """The mean negative log-likelihood (nats) of the labels, from logits z, as on the traffic before sampling.

    ``Σ_i (1/s_i) (log(1 + e^{z_i}) - y_i z_i) / Σ_i (1/s_i)``, with s_i the share of such rows that was kept (1 if
    None); nan without rows. Computed as ``max(z, 0) - y z + log1p(e^{-|z|})``: no overflow, and no probability is
    clipped, so an infinitely sure and wrong logit costs inf.
    """
    positive, logits = checked(labels, logits)
    if not len(logits):
        return float("nan")
    counts = undo_sampling(sample_rate, len(logits))
    return float((counts * row_losses(positive, logits)).sum() / counts.sum())


def row_losses(positive: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The negative log-likelihood (nats) of each row, float64; `positive` is bool."""
    logits = logits.astype(np.float64)
    against = np.where(positive, -logits, logits)  # y in {0, 1}: the loss is log(1 + e^{against})
    return np.maximum(against, 0.0) + np.log1p(np.exp(-np.abs(against)))


def normalised_entropy(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """The log-loss over that of always predicting the base rate p: below 1 is better than knowing p alone.

    ``NE = log_loss / -(p log p + (1 - p) log(1 - p))`` with ``p = Σ_i y_i/s_i / Σ_i 1/s_i``: both sides undo the
    sample rate. He et al. 2014, Practical Lessons from Predicting Clicks on Ads at Facebook, eq. 1 (ADKDD). nan where
    one class is absent: nothing was uncertain.

    p is that of the same rows, so two sets of rows have two yardsticks: compare models on the same rows.
    """
    positive, logits = checked(labels, logits)
    counts = undo_sampling(sample_rate, len(logits))
    loss = log_loss(labels, logits, sample_rate)
    return normalise(loss, float((counts * positive).sum()), float((counts * ~positive).sum()))


def normalise(loss: float, positives: float, negatives: float) -> float:
    """A log-loss over the entropy (nats) of the base rate that the two (weighted) counts have; nan if one is 0."""
    if not positives or not negatives:
        return float("nan")
    p, q = positives / (positives + negatives), negatives / (positives + negatives)
    return float(loss / -(p * np.log(p) + q * np.log(q)))


def brier(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """The mean squared error of the predicted probability: ``Σ_i (σ(z_i) - y_i)²/s_i / Σ_i 1/s_i``; nan without rows.

    Brier 1950. At click rates of a per cent it is nearly the base rate whatever the model: log-loss tells them apart.
    """
    positive, logits = checked(labels, logits)
    if not len(logits):
        return float("nan")
    counts = undo_sampling(sample_rate, len(logits))
    return float((counts * (sigmoid(logits) - positive) ** 2).sum() / counts.sum())


def pcoc(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """Predicted over observed positives, from logits, as on the traffic before sampling; 1 is calibrated on average.

    ``Σ_i σ(z_i)/s_i / Σ_i y_i/s_i``; nan without a positive. An average: it can be 1 while every part is off.
    """
    positive, logits = checked(labels, logits)
    counts = undo_sampling(sample_rate, len(logits))
    observed = (counts * positive).sum()
    return float((counts * sigmoid(logits)).sum() / observed) if observed else float("nan")


def ece(
    labels: np.ndarray,
    logits: np.ndarray,
    sample_rate: np.ndarray | None = None,
    *,
    bins: int = 20,
    binning: Binning = "equal_mass",
) -> float:
    """Expected calibration error: how far, on average, a bin's mean prediction is from its observed rate.

    ``Σ_b |Σ_{i in b} (σ(z_i) - y_i)/s_i| / Σ_i 1/s_i``; nan without rows.

    Args:
        labels, logits, sample_rate: one a row.
        bins: how many at most. 20 is our choice: the literature has 10 to 100.
        binning: ``equal_mass``: the rows, sorted by prediction, in `bins` runs of nearly equal count, where rows of one
            prediction stay together, in the bin of the first of them (Nguyen and O'Connor 2015, arXiv:1508.05154).
            ``equal_width``: `bins` equal parts of [0, 1] (Naeini et al. 2015): at low rates nearly all rows share the
            first one, and the value says little more than PCOC.

    The estimate is biased upwards: chance alone moves a bin of n rows by about sqrt(p (1 - p) / n), and absolute values
    do not cancel (Roelofs et al. 2022, arXiv:2012.08668). A perfect model is not at 0, more bins read higher, and
    values compare only at the same rows and bins.
    """
    if bins < 1:
        raise ValueError(f"Expected at least 1 bin, got {bins}.")
    if binning not in ("equal_mass", "equal_width"):
        raise ValueError(f"Expected binning 'equal_mass' or 'equal_width', got {binning!r}.")
    positive, logits = checked(labels, logits)
    if not len(logits):
        return float("nan")
    counts, predicted = undo_sampling(sample_rate, len(logits)), sigmoid(logits)
    if binning == "equal_mass":
        order = np.argsort(logits)
        starts = run_starts(logits[order])
        bin_of = np.empty(len(order), dtype=np.int64)
        bin_of[order] = np.repeat(starts * bins // len(order), np.diff(np.append(starts, len(order))))
    else:
        bin_of = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, counts * (predicted - positive), minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """``1 / (1 + e^{-z})`` in float64 without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)
