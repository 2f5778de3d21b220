"""Where the items a user took stand among the whole catalogue, from blocks of a score matrix.

Blocks, because users × items does not fit: one block of scores is held at a time, and of each positive only two
counts are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fullrank.data.columns import Ragged
from fullrank.evaluation.checks import run_starts, run_sums
from fullrank.evaluation.ranking import RankingMetrics, TieRuns, metrics_of_runs


@dataclass(frozen=True)
class Ranks:
    """How many negatives (items neither positive nor excluded) score above and exactly as each of P positives, int64.

    Query q owns the positives `offsets[q]:offsets[q + 1]`. Other positives are not counted: a positive that is alone
    in its query has rank ``above + 1`` where nothing ties, ``above + 1 + tied / 2`` in expectation.
    """

    above_P: np.ndarray
    tied_P: np.ndarray
    offsets: np.ndarray


def rank_of_positives(
    score_blocks: Iterable[np.ndarray], positives: Ragged, exclude: Ragged | None = None
) -> Ranks:
    """Count, for every positive of every query, the items above it.

    Args:
        score_blocks: float scores [queries, items], consecutive queries a block, any number of queries each. Item i is
            column i; columns that are no items (padding) go into `exclude`, or have -inf.
        positives: item columns of each query, one or more, each once. A query may have none: it is skipped later.
        exclude: item columns of each query that are not ranked (items seen before). A positive is ranked even if it is
            in here (our choice: it was taken again).

    Holds one block, a copy of it and its comparison: 2.25 times a block of float32 beside the block. The block's size
    is the caller's: 256 queries by 10^6 items are 1 GB.
    """
    num_queries = len(positives)
    if exclude is not None and len(exclude) != num_queries:
        raise ValueError(f"Expected excluded items for every query ({num_queries}), got those of {len(exclude)}.")
    above, tied = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    done = 0
    for block in score_blocks:
        scores_QI = np.array(block, copy=True)
        if scores_QI.ndim != 2 or scores_QI.dtype.kind != "f":
            raise ValueError(f"Expected float scores [queries, items], got {scores_QI.dtype} {scores_QI.shape}.")
        end = done + len(scores_QI)
        if end > num_queries:
            raise ValueError(f"Expected scores of {num_queries} queries, got {end} or more.")
        query_P, item_P = _cells(positives, done, end, scores_QI.shape[1], "positive")
        own_P = scores_QI[query_P, item_P]
        _check(scores_QI, query_P, item_P, done)
        if exclude is not None:
            scores_QI[_cells(exclude, done, end, scores_QI.shape[1], "excluded")] = np.nan
        scores_QI[query_P, item_P] = np.nan  # nan is neither above nor equal: it takes an item out of every count
        for part in range(0, len(own_P), max(len(scores_QI), 1)):  # as many rows at once as the block has
            rows = slice(part, part + len(scores_QI))
            others_PI, own_P1 = scores_QI[query_P[rows]], own_P[rows, None]
            above.append(np.count_nonzero(others_PI > own_P1, axis=1))
            tied.append(np.count_nonzero(others_PI == own_P1, axis=1))
        done = end
    if done < num_queries:
        raise ValueError(f"Expected scores of {num_queries} queries, got {done}.")
    return Ranks(np.concatenate(above), np.concatenate(tied), positives.offsets)


def metrics_of_ranks(ranks: Ranks, ks: Sequence[int] = (1, 5, 10)) -> RankingMetrics:
    """The ranking metrics at every k of `ks`, a query being a group: see `RankingMetrics`. Ties in expectation."""
    num_positives_Q = np.diff(ranks.offsets)
    query_P = np.repeat(np.arange(len(num_positives_Q)), num_positives_Q)
    order = np.lexsort((ranks.tied_P, ranks.above_P, query_P))
    query_P, above_P, tied_P = query_P[order], ranks.above_P[order], ranks.tied_P[order]
    # Positives of equal counts either tie with the same negatives, or have no negative between them: one run.
    starts = run_starts(query_P, above_P, tied_P)
    pos_G = run_sums(np.ones(len(order), np.int64), starts)
    query_G = query_P[starts]
    before_G = starts - ranks.offsets[query_G]  # positives of the query in better runs
    used, dense = np.unique(query_G, return_inverse=True)
    runs = TieRuns(dense, above_P[starts] + before_G, tied_P[starts] + pos_G, pos_G)
    return metrics_of_runs(runs, ks, skipped=len(num_positives_Q) - len(used))


def _cells(items: Ragged, begin: int, end: int, width: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Row in the block and column of the items of queries begin .. end - 1."""
    offsets = items.offsets[begin : end + 1]
    columns = items.values[offsets[0] : offsets[-1]].astype(np.int64)
    rows = np.repeat(np.arange(end - begin), np.diff(offsets))
    wrong = np.flatnonzero((columns < 0) | (columns >= width))
    if len(wrong):
        at = wrong[0]
        raise ValueError(f"Expected {what} items in 0 .. {width - 1}, got {columns[at]} in query {begin + rows[at]}.")
    return rows, columns


def _check(scores_QI: np.ndarray, query_P: np.ndarray, item_P: np.ndarray, begin: int) -> None:
    missing = np.isnan(scores_QI).any(axis=1)
    if missing.any():
        raise ValueError(f"Expected a score for every item, got nan in query {begin + int(missing.argmax())}.")
    cells = np.sort(query_P * scores_QI.shape[1] + item_P)
    twice = np.flatnonzero(cells[1:] == cells[:-1])
    if len(twice):
        query, item = divmod(int(cells[twice[0]]), scores_QI.shape[1])
        raise ValueError(f"Expected each positive once, got item {item} twice in query {begin + query}.")
