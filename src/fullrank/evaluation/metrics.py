"""Exact metrics of binary predictions, in float64 by sorting: no buckets, no sampling, no dependence on row order.

Two kinds, weighted differently, and each says how. *Ranking* metrics (`auc`, `auc_per_user`) count every kept row once:
keeping only a share of the negatives at random leaves them unchanged in expectation. *Probability* metrics (`log_loss`,
`pcoc`) do not survive sampling, so a row of which the share s was kept counts 1/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Weighting = Literal["impressions", "equal"]


@dataclass(frozen=True, kw_only=True)
class PerUserAuc:
    """`value` (nan without any usable user), and how many users had both classes (`users`) or not (`skipped`)."""

    value: float
    users: int
    skipped: int


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The probability that a random positive scores above a random negative, a tie counting one half.

    ``AUC = Σ_{i: y=1} Σ_{j: y=0} w_i w_j ([s_i > s_j] + ½ [s_i = s_j]) / (Σ_{y=1} w_i · Σ_{y=0} w_j)``

    Args:
        labels: 0/1 (or bool), one a row.
        scores: any finite or infinite numbers, compared as they are (float32 scores tie as float32).
        weights: ≥ 0; every row counts once if None, and the pairs are then counted in integers.

    Returns nan when one of the classes is absent (or weighs nothing): there is no pair to compare.

    Not for calibration: any increasing function of the scores has the same AUC. Across users it also rewards knowing
    who clicks at all; `auc_per_user` compares within a user alone.
    """
    positive, scores = _checked(labels, scores)
    if weights is None:
        order = np.argsort(scores, kind="stable")
        counts = np.ones(len(scores), dtype=np.int64)
    else:
        weights = _checked_weights(weights, len(scores))
        order = np.lexsort((weights, positive, scores))  # a total order: the sums do not depend on the rows' order
        counts = weights[order]
    positive, scores = positive[order], scores[order]
    starts = _group_starts(scores)
    pos_G = _sums(counts * positive, starts)
    neg_G = _sums(counts * ~positive, starts)
    pairs = pos_G.sum() * neg_G.sum()
    if not pairs:
        return float("nan")
    twice_won = (pos_G * (2 * (np.cumsum(neg_G) - neg_G) + neg_G)).sum()
    return float(twice_won / pairs / 2)


def auc_per_user(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, weighting: Weighting = "impressions"
) -> PerUserAuc:
    """The mean of each user's own AUC over the users who have both a positive and a negative row.

    ``Σ_u n_u AUC_u / Σ_u n_u`` where n_u is the user's number of rows (``impressions``: GAUC, Zhou et al. 2018, Deep
    Interest Network, eq. 7, arXiv:1706.06978) or 1 (``equal``).

    Args:
        labels, scores: as for `auc`, one a row.
        users: an integer code a row; rows of one code are one user.

    With few rows a user the value is noisy and most users are skipped: read it together with `users` and `skipped`.
    """
    if weighting not in ("impressions", "equal"):
        raise ValueError(f"Expected weighting 'impressions' or 'equal', got {weighting!r}.")
    positive, scores = _checked(labels, scores)
    users = np.asarray(users)
    if len(users) != len(scores):
        raise ValueError(f"Expected one user a row, got {len(users)} users for {len(scores)} rows.")
    if not len(scores):
        return PerUserAuc(value=float("nan"), users=0, skipped=0)
    order = np.lexsort((scores, users))
    positive, scores, users = positive[order], scores[order], users[order]
    starts = _group_starts(users, scores)  # a group: the rows of one user with one score
    pos_G, neg_G = _sums(positive.astype(np.int64), starts), _sums((~positive).astype(np.int64), starts)
    first_U = _group_starts(users[starts])  # each user's first group
    groups_U = np.diff(np.append(first_U, len(starts)))
    below_G = np.cumsum(neg_G) - neg_G
    below_G -= np.repeat(below_G[first_U], groups_U)
    twice_won_U = _sums(pos_G * (2 * below_G + neg_G), first_U)
    pos_U, neg_U = _sums(pos_G, first_U), _sums(neg_G, first_U)
    usable = (pos_U > 0) & (neg_U > 0)
    auc_U = twice_won_U[usable] / (2 * pos_U[usable] * neg_U[usable])
    weight_U = (pos_U + neg_U)[usable] if weighting == "impressions" else np.ones(len(auc_U), dtype=np.int64)
    value = float((weight_U * auc_U).sum() / weight_U.sum()) if len(auc_U) else float("nan")
    return PerUserAuc(value=value, users=int(usable.sum()), skipped=int((~usable).sum()))


def log_loss(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """The mean negative log-likelihood (nats) of the labels, from logits z, as on the traffic before sampling.

    ``Σ_i (1/s_i) (log(1 + e^{z_i}) - y_i z_i) / Σ_i (1/s_i)``, with s_i the share of such rows that was kept (1 if
    None); nan without rows. Computed as ``max(z, 0) - y z + log1p(e^{-|z|})``: no overflow, and no probability is
    clipped, so an infinitely sure and wrong logit costs inf.
    """
    positive, logits = _checked(labels, logits)
    if not len(logits):
        return float("nan")
    logits = logits.astype(np.float64)
    against = np.where(positive, -logits, logits)  # y in {0, 1}: the loss is log(1 + e^{against})
    losses = np.maximum(against, 0.0) + np.log1p(np.exp(-np.abs(against)))
    counts = _undo(sample_rate, len(logits))
    return float((counts * losses).sum() / counts.sum())


def pcoc(labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> float:
    """Predicted over observed positives, from logits, as on the traffic before sampling; 1 is calibrated on average.

    ``Σ_i σ(z_i)/s_i / Σ_i y_i/s_i``; nan without a positive. An average: it can be 1 while every part is off.
    """
    positive, logits = _checked(labels, logits)
    counts = _undo(sample_rate, len(logits))
    observed = (counts * positive).sum()
    return float((counts * sigmoid(logits)).sum() / observed) if observed else float("nan")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """``1 / (1 + e^{-z})`` in float64 without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores as an array; a label outside 0/1 and a nan score are errors that name the row."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"Expected one label and one score a row, got shapes {labels.shape} and {scores.shape}.")
    positive = labels == 1
    wrong = np.flatnonzero(~positive & (labels != 0))
    if len(wrong):
        raise ValueError(
            f"Expected labels 0 or 1, got {labels[wrong[0]]} in row {wrong[0]}: leave rows of unknown label out."
        )
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise ValueError(f"Expected a score for every row, got nan in row {missing[0]} ({len(missing)} in all).")
    return positive, scores


def _checked_weights(weights: np.ndarray, rows: int) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"Expected one weight a row ({rows}), got shape {weights.shape}.")
    wrong = np.flatnonzero(~(weights >= 0) | np.isinf(weights))
    if len(wrong):
        raise ValueError(f"Expected finite weights >= 0, got {weights[wrong[0]]} in row {wrong[0]}.")
    return weights


def _undo(sample_rate: np.ndarray | None, rows: int) -> np.ndarray:
    """1/s a row: how many rows of the unsampled traffic it stands for."""
    if sample_rate is None:
        return np.ones(rows)
    rate = np.asarray(sample_rate, dtype=np.float64)
    if rate.shape != (rows,):
        raise ValueError(f"Expected one sample rate a row ({rows}), got shape {rate.shape}.")
    wrong = np.flatnonzero(~((rate > 0) & (rate <= 1)))
    if len(wrong):
        raise ValueError(f"Expected sample rates in (0, 1], got {rate[wrong[0]]} in row {wrong[0]}.")
    return 1.0 / rate


def _group_starts(*keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins, in sorted arrays."""
    changed = np.zeros(len(keys[0]), dtype=bool)
    changed[:1] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else values[:0]
