"""Metrics of the top k of each request: NDCG, hit rate, recall, precision, reciprocal rank; ties in expectation.

A metric of a list is only defined once ties are broken. Here every order of tied rows is equally likely and the
expected value is reported (McSherry and Najork 2008, ECIR, for NDCG, precision and recall; for hit rate and
reciprocal rank the same rule is our choice): exact, the same whatever the order of the rows, and a constant model
gets what chance gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fullrank.evaluation.checks import checked, checked_codes, run_starts, run_sums


@dataclass(frozen=True, kw_only=True)
class RankingMetrics:
    """Means over the `groups` that have a positive, each counting once (`skipped` have none); nan without any.

    Each metric is a dict from cutoff k to its value, with h the number of positives in the top k and P in the group:

    * ``ndcg``: Σ 1/log2(1 + rank) over the positives in the top k, over the most P positives can reach.
    * ``hit_rate``: the share of groups with h ≥ 1.
    * ``recall``: h / P: where P > k it can't reach 1.
    * ``precision``: h / k, also of a group of fewer than k rows.
    * ``mrr``: 1 / rank of the first positive, 0 if that is beyond k.
    """

    groups: int
    skipped: int
    ndcg: dict[int, float]
    hit_rate: dict[int, float]
    recall: dict[int, float]
    precision: dict[int, float]
    mrr: dict[int, float]


@dataclass(frozen=True)
class TieRuns:
    """Where the positives of Q groups lie: G runs of equal scores that hold at least one, best first in each group.

    `group_G`: 0 .. Q - 1, ascending · `start_G`: how many rows of the group score higher · `size_G`: rows in the
    run · `positives_G`: positives among them, ≥ 1. All int64. Every group has at least one run.
    """

    group_G: np.ndarray
    start_G: np.ndarray
    size_G: np.ndarray
    positives_G: np.ndarray


def ranking_metrics(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> RankingMetrics:
    """The metrics at every k of `ks` of the lists that ranking each group's rows by score gives.

    Args:
        labels: 0/1 (or bool), one a row.
        scores: any numbers, higher is better, one a row; compared as they are.
        groups: an integer code a row: what is ranked together (a request, a user).
        ks: cutoffs ≥ 1.

    Measures how the logged candidates are ordered, not what would have been found among all items: a group of k rows
    has recall 1 at k. For a positive among the whole catalogue see `full_ranking.py`. Sampled negatives in a group
    make every value too good and can turn the order of models round (Krichene and Rendle 2020, KDD).
    """
    positive, scores = checked(labels, scores)
    groups = checked_codes(groups, len(scores), "group")
    order = np.lexsort((scores, groups))[::-1]
    positive, scores, groups = positive[order], scores[order], groups[order]
    starts = run_starts(groups, scores)
    pos_G = run_sums(positive.astype(np.int64), starts)
    first_U = run_starts(groups)  # each group's first row
    group_G = np.searchsorted(first_U, starts, "right") - 1
    size_G = np.diff(np.append(starts, len(scores)))
    keep = pos_G > 0
    used, dense = np.unique(group_G[keep], return_inverse=True)
    runs = TieRuns(dense, (starts - first_U[group_G])[keep], size_G[keep], pos_G[keep])
    return metrics_of_runs(runs, ks, skipped=len(first_U) - len(used))


def metrics_of_runs(runs: TieRuns, ks: Sequence[int], skipped: int) -> RankingMetrics:
    """The metrics from where the positives lie. `skipped`: how many groups without a positive are not in `runs`."""
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise ValueError(f"Expected cutoffs k >= 1, got {ks}.")
    group_G, start_G, size_G, pos_G = runs.group_G, runs.start_G, runs.size_G, runs.positives_G
    first_Q = run_starts(group_G)
    total_Q = run_sums(pos_G, first_Q)
    gain = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(2, ks[-1] + 2)))))  # of the first 0, 1, … k ranks
    share_G = pos_G / size_G  # how probable a positive is at each place of the run
    ndcg, recall, precision = {}, {}, {}
    for k in ks:
        begin_G, end_G = np.minimum(start_G, k), np.minimum(start_G + size_G, k)
        hits_Q = run_sums(share_G * (end_G - begin_G), first_Q)
        dcg_Q = run_sums(share_G * (gain[end_G] - gain[begin_G]), first_Q)
        ndcg[k] = _mean(dcg_Q / gain[np.minimum(total_Q, k)])
        recall[k] = _mean(hits_Q / total_Q)
        precision[k] = _mean(hits_Q / k)
    hit_rate, mrr = _of_first_positive(start_G[first_Q], size_G[first_Q], pos_G[first_Q], ks)
    return RankingMetrics(
        groups=len(first_Q),
        skipped=skipped,
        ndcg=ndcg,
        hit_rate=hit_rate,
        recall=recall,
        precision=precision,
        mrr=mrr,
    )


def _of_first_positive(
    start_Q: np.ndarray, size_Q: np.ndarray, pos_Q: np.ndarray, ks: list[int]
) -> tuple[dict[int, float], dict[int, float]]:
    """Hit rate and MRR: both know only the place j of the first positive in its run of `size` rows, `pos` positive.

    P(j) = pos / (size - j) · Π_{i<j} (1 - pos / (size - i)): drawing the run's rows one after another.
    """
    groups = len(start_Q)
    hit, inverse = dict.fromkeys(ks, 0.0), dict.fromkeys(ks, 0.0)
    none_yet_Q = np.ones(groups)
    for j in range(ks[-1]):
        open_Q = (start_Q + j < ks[-1]) & (none_yet_Q > 0)
        if not open_Q.any():
            break
        start_Q, size_Q, pos_Q, none_yet_Q = start_Q[open_Q], size_Q[open_Q], pos_Q[open_Q], none_yet_Q[open_Q]
        here_Q = none_yet_Q * pos_Q / (size_Q - j)
        rank_Q = start_Q + j + 1
        for k in ks:
            within = rank_Q <= k
            hit[k] += float(here_Q[within].sum())
            inverse[k] += float((here_Q[within] / rank_Q[within]).sum())
        # exactly 0 once only positives are left, which a subtraction of `here` would miss by rounding
        none_yet_Q = none_yet_Q * (size_Q - j - pos_Q) / (size_Q - j)
    nan = float("nan")
    return (
        {k: value / groups if groups else nan for k, value in hit.items()},
        {k: value / groups if groups else nan for k, value in inverse.items()},
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
