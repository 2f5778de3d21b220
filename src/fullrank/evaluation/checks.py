"""What every metric asks of its columns before it counts, and sums over runs of sorted rows."""

from __future__ import annotations

import numpy as np


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def checked_weights(weights: np.ndarray | None, rows: int) -> np.ndarray:
    """Finite weights >= 0 as float64, one a row; ones if None."""
    if weights is None:
        return np.ones(rows)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"Expected one weight a row ({rows}), got shape {weights.shape}.")
    wrong = np.flatnonzero(~(weights >= 0) | np.isinf(weights))
    if len(wrong):
        raise ValueError(f"Expected finite weights >= 0, got {weights[wrong[0]]} in row {wrong[0]}.")
    return weights


def checked_codes(codes: np.ndarray, rows: int, what: str) -> np.ndarray:
    """Integer codes, one a row; `what` names one of them in the error ("user", "group")."""
    codes = np.asarray(codes)
    if codes.shape != (rows,):
        raise ValueError(f"Expected one {what} a row, got {codes.size} {what}s for {rows} rows.")
    if rows and codes.dtype.kind not in "iu":
        raise ValueError(f"Expected integer {what} codes, got {codes.dtype}: give every {what} an integer.")
    return codes


def undo_sampling(sample_rate: np.ndarray | None, rows: int) -> np.ndarray:
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


def run_starts(*keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins, in sorted arrays."""
    changed = np.zeros(len(keys[0]), dtype=bool)
    changed[:1] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def run_sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of every run that begins at `starts`."""
    return np.add.reduceat(values, starts) if len(starts) else values[:0]
