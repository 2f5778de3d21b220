"""What another policy would have earned, from the log of the one that ran: four estimators and their weak points.

Every row is one shown action a with its reward r and the probability p it was shown with; the target policy would have
shown it with probability π (for a list: at the same position). The weight is w = π / p. Standard errors take rows as
independent: with several rows a request or user they are too small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PolicyValue:
    """An estimate of the mean reward a row, and what says whether to believe it.

    `standard_error`: of the estimate over logs of this size · `effective_rows`: ``(Σ w)² / Σ w²``, the number of
    rows that would be as informative if all weighed the same (Kish 1965) · `mean_weight`: 1 in expectation where the
    log could show everything the target shows, so a value off 1 by several `1/sqrt(effective_rows)` says that it could
    not, or that a propensity is wrong · `clipped`: the share of rows whose weight was cut, which biases the estimate.
    The weights' entries are nan for the direct method, which has none.
    """

    value: float
    standard_error: float
    rows: int
    effective_rows: float
    mean_weight: float
    largest_weight: float
    clipped: float


def ipw(
    rewards: np.ndarray, propensity: np.ndarray, target_probability: np.ndarray, *, clip: float = float("inf")
) -> PolicyValue:
    """Inverse propensity weighting: ``V = 1/n Σ_i w_i r_i``, w_i = min(π_i / p_i, clip). Horvitz and Thompson 1952.

    Args:
        rewards: r, any number, one a row.
        propensity: p in (0, 1], one a row.
        target_probability: π in [0, 1], of the shown action, one a row.
        clip: the largest weight; less variance, and a bias downwards for rewards ≥ 0.

    Unbiased without clipping where p > 0 wherever π > 0. Of little use where a few rows carry the weight: see
    `effective_rows`, and prefer `doubly_robust` where a reward model exists.
    """
    rewards, weights, cut = _weights(rewards, propensity, target_probability, clip)
    return _value(weights * rewards, weights, cut)


def self_normalised_ipw(
    rewards: np.ndarray, propensity: np.ndarray, target_probability: np.ndarray, *, clip: float = float("inf")
) -> PolicyValue:
    """``V = Σ_i w_i r_i / Σ_i w_i``: stays between the least and the greatest reward; adding a constant to all rewards
    adds it to V. Arguments as for `ipw`. Swaminathan and Joachims 2015, NeurIPS.

    A bias of order 1/n, often for much less variance. The standard error is that of a ratio (delta method):
    ``sqrt(Σ w² (r - V)²) / Σ w``. nan where all weights are 0.
    """
    rewards, weights, cut = _weights(rewards, propensity, target_probability, clip)
    whole = weights.sum()
    if not whole:
        return _value(np.full(len(rewards), np.nan), weights, cut)
    value = float((weights * rewards).sum() / whole)
    error = float(np.sqrt((weights**2 * (rewards - value) ** 2).sum()) / whole)
    return _diagnosed(value, error, weights, cut)


def direct_method(policy_CA: np.ndarray, reward_CA: np.ndarray, context_N: np.ndarray) -> PolicyValue:
    """``V = 1/n Σ_i Σ_a π(a | c_i) q(c_i, a)``: the target's mean of what a reward model says.

    Args:
        policy_CA: the target's probability of action a in context c (a position, a segment; one a row where C = N).
        reward_CA: the model's expected reward q.
        context_N: the context of each row.

    As wrong as the model is. The standard error knows only which contexts came, not how wrong q is.
    """
    policy_CA, reward_CA = _tables(policy_CA, reward_CA)
    value_N = (policy_CA * reward_CA).sum(axis=1)[_index(context_N, len(policy_CA), "context")]
    return _value(value_N, np.full(len(value_N), np.nan), np.nan)


def doubly_robust(
    rewards: np.ndarray,
    propensity: np.ndarray,
    action_N: np.ndarray,
    policy_CA: np.ndarray,
    reward_CA: np.ndarray,
    context_N: np.ndarray,
    *,
    clip: float = float("inf"),
) -> PolicyValue:
    """``V = 1/n Σ_i [Σ_a π(a | c_i) q(c_i, a) + w_i (r_i - q(c_i, a_i))]``. Dudík et al. 2011, ICML, arXiv:1103.4601.

    Args:
        rewards, propensity, clip: as for `ipw`.
        action_N: the shown action, a column of the tables.
        policy_CA, reward_CA, context_N: as for `direct_method`.

    Unbiased if the propensities are right, or the reward model is. The model must not have learnt from these very rows
    (fit it on others, or on the other half): else it explains their noise and the correction vanishes.
    """
    policy_CA, reward_CA = _tables(policy_CA, reward_CA)
    context_N = _index(context_N, len(policy_CA), "context")
    action_N = _index(action_N, policy_CA.shape[1], "action")
    rewards, weights, cut = _weights(rewards, propensity, policy_CA[context_N, action_N], clip)
    expected_N = (policy_CA * reward_CA).sum(axis=1)[context_N]
    return _value(expected_N + weights * (rewards - reward_CA[context_N, action_N]), weights, cut)


def _value(terms: np.ndarray, weights: np.ndarray, clipped: float) -> PolicyValue:
    """The mean of independent terms, and its standard error."""
    rows = len(terms)
    error = float(terms.std(ddof=1) / np.sqrt(rows)) if rows > 1 else float("nan")
    return _diagnosed(float(terms.mean()) if rows else float("nan"), error, weights, clipped)


def _diagnosed(value: float, error: float, weights: np.ndarray, clipped: float) -> PolicyValue:
    nan, rows, squares = float("nan"), len(weights), float((weights**2).sum())
    return PolicyValue(
        value=value,
        standard_error=error,
        rows=rows,
        effective_rows=float(weights.sum() ** 2 / squares) if squares else 0.0,
        mean_weight=float(weights.mean()) if rows else nan,
        largest_weight=float(weights.max()) if rows else nan,
        clipped=float(clipped),
    )


def _weights(
    rewards: np.ndarray, propensity: np.ndarray, target: np.ndarray, clip: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Rewards, weights min(π / p, clip), and the share of rows that were cut."""
    if not clip > 0:
        raise ValueError(f"Expected clip > 0, got {clip}: without a limit it is inf.")
    rewards = np.asarray(rewards, dtype=np.float64)
    propensity, target = np.asarray(propensity, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if rewards.ndim != 1 or not rewards.shape == propensity.shape == target.shape:
        shapes = f"{rewards.shape}, {propensity.shape} and {target.shape}"
        raise ValueError(f"Expected one reward, propensity and target probability a row, got shapes {shapes}.")
    for what, values, good in (
        ("a finite reward", rewards, np.isfinite(rewards)),
        ("a propensity in (0, 1]", propensity, (propensity > 0) & (propensity <= 1)),
        ("a target probability in [0, 1]", target, (target >= 0) & (target <= 1)),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(f"Expected {what} for every row, got {values[row]} in row {row}.")
    weights = target / propensity
    clipped = float((weights > clip).mean()) if len(weights) else float("nan")
    return rewards, np.minimum(weights, clip), clipped


def _tables(policy_CA: np.ndarray, reward_CA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    policy_CA, reward_CA = np.asarray(policy_CA, dtype=np.float64), np.asarray(reward_CA, dtype=np.float64)
    if policy_CA.ndim != 2 or policy_CA.shape != reward_CA.shape:
        shapes = f"{policy_CA.shape} and {reward_CA.shape}"
        raise ValueError(f"Expected two tables [contexts, actions] of one shape, got {shapes}.")
    good = (policy_CA >= 0).all(axis=1) & (np.abs(policy_CA.sum(axis=1) - 1) < 1e-6)
    if not good.all():
        row = int(np.argmin(good))
        told = f"probabilities from {policy_CA[row].min()} with sum {policy_CA[row].sum()} in context {row}"
        raise ValueError(f"Expected the policy's probabilities >= 0 with sum 1 in every context, got {told}.")
    wrong = np.argwhere(~np.isfinite(reward_CA))
    if len(wrong):
        context, action = wrong[0]
        told = f"{reward_CA[context, action]} in context {context}, action {action}"
        raise ValueError(f"Expected a finite expected reward of every action, got {told}.")
    return policy_CA, reward_CA


def _index(index_N: np.ndarray, size: int, what: str) -> np.ndarray:
    index_N = np.asarray(index_N)
    wrong = np.flatnonzero((index_N < 0) | (index_N >= size))
    if len(wrong):
        raise ValueError(f"Expected {what}s 0 .. {size - 1}, got {index_N[wrong[0]]} in row {wrong[0]}.")
    return index_N
