"""From a logit to a probability that means what it says: fitted once on rows the ranker did not learn from, then saved.

Two steps. A curve of the task: `Platt`, ``σ(a z + b)``, or `Isotonic`, a free monotone line. Then, where a column cuts
the rows into slices, ``σ(a_s ẑ + b_s)`` of the curve's own logit ẑ, drawn to (1, 0), the curve itself, the harder the
smaller the slice. Both ascend, so that no pair of a slice changes its order (isotonic ties neighbours).

Rows count 1 / sample_rate: what comes out is the rate of the traffic before sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fullrank.data.partitions import DataState
from fullrank.evaluation.binary import sigmoid
from fullrank.evaluation.checks import checked, undo_sampling
from fullrank.evaluation.evaluate import Predictions
from fullrank.evaluation.slices import Cut
from fullrank.schema import did_you_mean

Method = Literal["platt", "isotonic"]
PRIOR_EVENTS = 20.0  # a slice of so many positives is drawn half the way to the whole (our choice)


@dataclass(frozen=True, kw_only=True)
class Platt:
    """``p = σ(a z + b)``, a >= 0."""

    a: float
    b: float

    def logits(self, logits_N: np.ndarray) -> np.ndarray:
        return self.a * logits_N.astype(np.float64) + self.b


@dataclass(frozen=True, kw_only=True)
class Isotonic:
    """A line through the knots (`at`, `probability`), both ascending; constant outside of them."""

    at: tuple[float, ...]
    probability: tuple[float, ...]

    def logits(self, logits_N: np.ndarray) -> np.ndarray:
        p_N = np.interp(logits_N.astype(np.float64), self.at, self.probability)
        return np.log(p_N) - np.log1p(-p_N)


@dataclass(frozen=True, kw_only=True)
class TaskCalibration:
    """A task's curve, a correction a slice of the cut, and the `rows` and `positives` (before weighting) it saw."""

    task: str
    curve: Platt | Isotonic
    slices: tuple[Platt, ...]
    rows: int
    positives: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is saved as `calibration.json`. `step`: the weights it belongs to; `split` of `data`: what it was fitted
    on; `cut`: how rows fall into slices (None: one for all)."""

    step: int
    split: str
    data: DataState
    cut: Cut | None
    tasks: tuple[TaskCalibration, ...]

    def of(self, task: str) -> TaskCalibration:
        """The calibration of a task; an error names the nearest one."""
        named = {each.task: each for each in self.tasks}
        if task not in named:
            near = did_you_mean(task, list(named))
            raise ValueError(f"No calibration of task {task!r}, only of {list(named)}.{near}")
        return named[task]

    def apply(self, task: str, logits_N: np.ndarray, slice_N: np.ndarray | None = None) -> np.ndarray:
        """Probabilities, float64, ascending in the logit within a slice.

        Args:
            logits_N: finite logits of the ranker; nan and inf are refused.
            slice_N: each row's slice (`cut.slice_of`), where there is a cut; -1, a slice never seen, gets the curve
                alone.
        """
        return sigmoid(self.logits(task, logits_N, slice_N))

    def logits(self, task: str, logits_N: np.ndarray, slice_N: np.ndarray | None = None) -> np.ndarray:
        """The logits of `apply`'s probabilities."""
        of = self.of(task)
        if (self.cut is None) != (slice_N is None):
            raise ValueError(
                f"Expected {'no slices' if self.cut is None else f'the slice of each row by {self.cut.by!r}'}, "
                f"got {'none' if slice_N is None else 'some'}."
            )
        result_N = of.curve.logits(_finite(logits_N))
        if slice_N is None:
            return result_N
        if slice_N.shape != logits_N.shape:
            raise ValueError(f"Expected one slice a row ({len(logits_N)}), got {len(slice_N)}.")
        a_S = np.array([each.a for each in of.slices] + [1.0])  # the last, at -1, is that of no slice
        b_S = np.array([each.b for each in of.slices] + [0.0])
        return a_S[slice_N] * result_N + b_S[slice_N]

    def calibrated(self, predictions: Predictions, slice_N: np.ndarray | None = None) -> Predictions:
        """The same predictions with calibrated logits; tasks that have no calibration (regression) stay."""
        logits_NK = predictions.logits_NK.copy()
        for each in self.tasks:
            column = predictions.column(each.task)
            try:
                logits_NK[:, column] = self.logits(each.task, logits_NK[:, column], slice_N)
            except ValueError as error:
                raise ValueError(f"Task {each.task!r}: {error}") from error
        return replace(predictions, logits_NK=logits_NK)


def fit_task(
    predictions: Predictions, task: str, method: Method, num_slices: int = 0, slice_N: np.ndarray | None = None
) -> TaskCalibration:
    """The calibration of a binary task on its rows of known label, with a correction for each of `num_slices`.

    Fit it on rows the ranker has not learned from: on its training rows it is surer than it is right. Isotonic wants
    thousands of positives; with fewer, its steps are noise and Platt's two numbers do better. A million rows take 3
    to 6 seconds of one core and 160 bytes a row.
    """
    column = predictions.column(task)
    known = predictions.known_NK[:, column]
    try:
        positive, logits = checked(predictions.labels_NK[known, column], predictions.logits_NK[known, column])
        logits = _finite(logits).astype(np.float64)
        weights = undo_sampling(predictions.sample_rate_N[known], len(logits))
        if positive.all() or not positive.any():
            raise ValueError(
                f"Expected positives and negatives to fit on, got {int(positive.sum())} positives in "
                f"{len(positive)} rows of known label."
            )
        curve = fit_platt(positive, logits, weights) if method == "platt" else fit_isotonic(positive, logits, weights)
    except ValueError as error:
        raise ValueError(f"Task {task!r}: {error}") from error
    slices: tuple[Platt, ...] = ()
    if slice_N is not None:
        slices = _fit_slices(positive, curve.logits(logits), weights, slice_N[known], num_slices)
    return TaskCalibration(
        task=task, curve=curve, slices=slices, rows=len(logits), positives=int(positive.sum())
    )


def fit_platt(positive: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> Platt:
    """Logistic regression of the label on the logit, ``min_{a >= 0, b} Σ_i w_i loss(y_i, a z_i + b)``.

    Platt 1999, Probabilistic Outputs for Support Vector Machines, section 2.2, with its targets
    ``(N+ + 1) / (N+ + 2)`` and ``1 / (N- + 2)`` in the place of 1 and 0 (N counts rows): without them, logits that
    part the classes would be given an infinite slope. a >= 0 is our choice: calibrating never turns an order round.
    """
    pos = int(positive.sum())
    target_N = np.where(positive, (pos + 1) / (pos + 2), 1 / (len(positive) - pos + 2))
    return _newton(target_N, logits, weights, np.zeros((2, 2)), np.array([1.0, 0.0]))


def fit_isotonic(positive: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> Isotonic:
    """The monotone curve of least log-loss (and of least squared error: the same one), by pooling neighbours.

    Zadrozny and Elkan 2002, Transforming Classifier Scores into Accurate Multiclass Probability Estimates. Our choice:
    no probability is nearer to 0 or 1 than ``1 / (2 (n + 1))`` of n rows, since n rows cannot tell it from 0. Its
    log-loss on the rows it was fitted to is at most that of the logits, but for half a row's worth of that bound.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 0.5 / (len(logits) + 1)
    fitted = IsotonicRegression(y_min=least, y_max=1.0 - least, out_of_bounds="clip")
    fitted.fit(logits, positive.astype(np.float64), sample_weight=weights)
    return Isotonic(
        at=tuple(np.asarray(fitted.X_thresholds_, dtype=np.float64).tolist()),
        probability=tuple(np.maximum.accumulate(np.asarray(fitted.y_thresholds_, dtype=np.float64)).tolist()),
    )


def _fit_slices(
    positive: np.ndarray, logits: np.ndarray, weights: np.ndarray, slice_N: np.ndarray, num_slices: int
) -> tuple[Platt, ...]:
    """A Platt for each slice under a normal prior around (1, 0) (our choice, as is `PRIOR_EVENTS`).

    The prior weighs as much as the rows that hold `PRIOR_EVENTS` of the rarer class in the whole: its precision is
    their Fisher information ``Σ w p (1 - p) [ẑ, 1]ᵀ[ẑ, 1]``. A slice without rows keeps the prior's (1, 0).
    """
    p_N = sigmoid(logits)
    x_N2 = np.stack([logits, np.ones(len(logits))], axis=1)
    events = min(int(positive.sum()), int((~positive).sum()))
    share = min(PRIOR_EVENTS / events, 1.0)
    precision = (x_N2 * (weights * p_N * (1.0 - p_N))[:, None]).T @ x_N2 * share
    order = np.argsort(slice_N, kind="stable")
    bounds = np.searchsorted(slice_N[order], np.arange(num_slices + 1))
    start = np.array([1.0, 0.0])
    slices = []
    for number in range(num_slices):
        index = order[bounds[number] : bounds[number + 1]]
        target_N = positive[index].astype(np.float64)
        slices.append(_newton(target_N, logits[index], weights[index], precision, start))
    return tuple(slices)


def _newton(
    target_N: np.ndarray, logits: np.ndarray, weights: np.ndarray, precision: np.ndarray, prior: np.ndarray
) -> Platt:
    """``min Σ w loss(t, a z + b) + ½ (θ - prior)ᵀ precision (θ - prior)`` over θ = (a, b) with a >= 0.

    Newton's steps, halved while they do not descend; convex, so if a ends below 0 the least is at a = 0.
    """
    x_N2 = np.stack([logits, np.ones(len(logits))], axis=1)

    def loss(theta: np.ndarray) -> float:
        z_N = x_N2 @ theta
        away = theta - prior
        return float(weights @ (np.logaddexp(0.0, z_N) - target_N * z_N) + 0.5 * away @ precision @ away)

    def descend(theta: np.ndarray, free: np.ndarray) -> np.ndarray:
        now = loss(theta)
        for _ in range(100):
            p_N = sigmoid(x_N2 @ theta)
            gradient = x_N2.T @ (weights * (p_N - target_N)) + precision @ (theta - prior)
            hessian = (x_N2 * (weights * p_N * (1.0 - p_N))[:, None]).T @ x_N2 + precision
            hessian += np.eye(2) * 1e-12 * np.trace(hessian)  # logits that are all equal leave a undecided
            step = np.zeros(2)
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            size = 1.0
            while (then := loss(theta - size * step)) > now and size > 1e-10:
                size /= 2.0
            if then >= now:
                break
            theta, now = theta - size * step, then
        return theta

    theta = descend(prior.copy(), np.array([0, 1]))
    if theta[0] < 0.0:
        theta = descend(np.array([0.0, theta[1]]), np.array([1]))
    return Platt(a=float(theta[0]), b=float(theta[1]))


def _finite(logits: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(logits))
    if len(wrong):
        raise ValueError(
            f"Expected finite logits, got {logits[wrong[0]]} in row {wrong[0]} ({len(wrong)} in all): "
            "the ranker has diverged, or its tables hold nan."
        )
    return logits
