"""Exact area under the ROC curve, of all rows and within groups: by sorting, in integers, whatever the rows' order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fullrank.evaluation.checks import checked, checked_codes, checked_weights, run_starts, run_sums

Weighting = Literal["impressions", "equal", "positives"]
_SCORE_BITS = 33  # of a packed key: 32 of the score, then one of the label; the group takes the 31 above


@dataclass(frozen=True, kw_only=True)
class PerUserAuc:
    """`value` (nan without any usable user), and how many users had both classes (`users`) or not (`skipped`)."""

    value: float
    users: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class GroupAuc:
    """`value` (nan without any usable group), and how many groups had both classes (`groups`) or not (`skipped`)."""

    value: float
    groups: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class GroupAucs:
    """The pair counts of U groups, codes ascending: what a mean, a bootstrap over groups or a slice is made of.

    `group_U`: the codes · `positives_U`, `negatives_U`: rows, int64 · `twice_won_U`: twice the number of pairs whose
    positive scores above its negative, a tie counting one half: int64, so that nothing is rounded.
    """

    group_U: np.ndarray
    positives_U: np.ndarray
    negatives_U: np.ndarray
    twice_won_U: np.ndarray

    @property
    def auc_U(self) -> np.ndarray:
        """Each group's own AUC, nan where it has one class alone."""
        pairs_U = self.positives_U * self.negatives_U
        return np.divide(self.twice_won_U, 2 * pairs_U, out=np.full(len(pairs_U), np.nan), where=pairs_U > 0)

    def weight_U(self, weighting: Weighting) -> np.ndarray:
        """What each group counts in a mean: 0 if it has one class alone."""
        check_weighting(weighting)
        weights = {
            "impressions": self.positives_U + self.negatives_U,
            "positives": self.positives_U,
            "equal": np.ones_like(self.positives_U),
        }
        return np.where((self.positives_U > 0) & (self.negatives_U > 0), weights[weighting], 0)

    def mean(self, weighting: Weighting = "impressions") -> GroupAuc:
        """``Σ_u w_u AUC_u / Σ_u w_u`` over the groups with both classes. See `auc_per_group`."""
        weight_U = self.weight_U(weighting)
        usable = weight_U > 0
        value = float("nan")
        if usable.any():
            value = float((weight_U[usable] * self.auc_U[usable]).sum() / weight_U.sum())
        return GroupAuc(value=value, groups=int(usable.sum()), skipped=int((~usable).sum()))


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The probability that a random positive scores above a random negative, a tie counting one half.

    ``AUC = Σ_{i: y=1} Σ_{j: y=0} w_i w_j ([s_i > s_j] + ½ [s_i = s_j]) / (Σ_{y=1} w_i · Σ_{y=0} w_j)``

    Args:
        labels: 0/1 (or bool), one a row.
        scores: any finite or infinite numbers, compared as they are (float32 scores tie as float32).
        weights: ≥ 0; every row counts once if None, and the pairs are then counted in integers.

    Returns nan when one of the classes is absent (or weighs nothing): there is no pair to compare.

    Without weights it takes a copy of the scores and 16 bytes a row of the rarer class; rows that don't fit into memory
    go to `large_auc.auc_of_chunks`. Not for calibration: any increasing function of the scores has the same AUC. Across
    users it also rewards knowing who clicks at all; `auc_per_user` compares within a user alone.
    """
    positive, scores = checked(labels, scores)
    if weights is None:
        pos, neg = np.sort(scores[positive]), np.sort(scores[~positive])
        pairs = len(pos) * len(neg)
        return twice_won(pos, neg) / (2 * pairs) if pairs else float("nan")
    weights = checked_weights(weights, len(scores))
    order = np.lexsort((weights, positive, scores))  # a total order: the sums do not depend on the rows' order
    counts, positive, scores = weights[order], positive[order], scores[order]
    starts = run_starts(scores)
    pos_G = run_sums(counts * positive, starts)
    neg_G = run_sums(counts * ~positive, starts)
    pairs = pos_G.sum() * neg_G.sum()
    if not pairs:
        return float("nan")
    return float((pos_G * (2 * (np.cumsum(neg_G) - neg_G) + neg_G)).sum() / pairs / 2)


def twice_won(positive_scores: np.ndarray, negative_scores: np.ndarray) -> int:
    """Twice the number of (positive, negative) pairs whose positive scores higher, ties one half, of sorted scores.

    Exact up to 2^62 pairs. Each score of the rarer class is looked up among those of the other one.
    """
    few, many = positive_scores, negative_scores
    if len(few) > len(many):
        few, many = many, few
    below = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
    return below if few is positive_scores else 2 * len(few) * len(many) - below


def auc_per_user(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, weighting: Weighting = "impressions"
) -> PerUserAuc:
    """`auc_per_group` where a group is a user: an integer code a row."""
    mean = group_aucs(labels, scores, checked_codes(users, len(np.asarray(scores)), "user")).mean(weighting)
    return PerUserAuc(value=mean.value, users=mean.groups, skipped=mean.skipped)


def auc_per_group(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, weighting: Weighting = "impressions"
) -> GroupAuc:
    """The mean of each group's own AUC over the groups that have both a positive and a negative row.

    ``Σ_u w_u AUC_u / Σ_u w_u`` where w_u is the group's number of rows (``impressions``: GAUC, Zhou et al. 2018, Deep
    Interest Network, eq. 7, arXiv:1706.06978), of positive rows (``positives``: weighting by clicks, the other choice
    of Zhu et al. 2017, Optimized Cost per Click, arXiv:1703.02091) or 1 (``equal``).

    Args:
        labels, scores: as for `auc`, one a row.
        groups: an integer code a row (user, request, day, campaign); rows of one code are one group.

    With few rows a group the value is noisy and most groups are skipped: read it together with `groups` and `skipped`.
    """
    return group_aucs(labels, scores, groups).mean(weighting)


def group_aucs(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> GroupAucs:
    """The pair counts of every group, single-class groups included; arguments as for `auc_per_group`.

    Takes about 100 bytes a row beside its arguments. At most 2^31 groups.
    """
    positive, scores = checked(labels, scores)
    groups = checked_codes(groups, len(scores), "group")
    order = np.argsort(groups)
    groups = groups[order]
    first = np.zeros(len(groups), dtype=np.uint64)
    first[1:] = groups[1:] != groups[:-1]
    # One word a row, (group, score, label): numbers sort several times faster than the rows' indices would.
    keys = np.cumsum(first, dtype=np.uint64)
    keys <<= np.uint64(_SCORE_BITS)
    keys |= _score_codes(scores)[order].astype(np.uint64) << np.uint64(1)
    keys |= positive[order]
    keys.sort()
    labels_N = (keys & np.uint64(1)).astype(np.int64)
    keys >>= np.uint64(1)
    starts = run_starts(keys)  # a run: the rows of one group with one score
    rows_G = np.diff(np.append(starts, len(keys)))
    pos_G = run_sums(labels_N, starts)
    neg_G = rows_G - pos_G
    first_U = run_starts(keys[starts] >> np.uint64(_SCORE_BITS - 1))  # each group's first run
    below_G = np.cumsum(neg_G) - neg_G
    below_G -= np.repeat(below_G[first_U], np.diff(np.append(first_U, len(starts))))
    return GroupAucs(
        group_U=groups[starts[first_U]],
        positives_U=run_sums(pos_G, first_U),
        negatives_U=run_sums(neg_G, first_U),
        twice_won_U=run_sums(pos_G * (2 * below_G + neg_G), first_U),
    )


def check_weighting(weighting: str) -> None:
    if weighting not in get_args(Weighting):
        raise ValueError(f"Expected weighting 'impressions', 'equal' or 'positives', got {weighting!r}.")


def _score_codes(scores: np.ndarray) -> np.ndarray:
    """Numbers below 2^32 in the order of the scores, equal for equal ones."""
    if scores.dtype not in (np.float16, np.float32):
        return np.unique(scores, return_inverse=True)[1]
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0.0 equals 0.0
    negative = bits >> np.uint32(31)
    # A float's bits ascend with its size: a negative one is turned round, a positive one put above all negatives.
    return bits ^ (np.uint32(0) - negative | np.uint32(1 << 31))
