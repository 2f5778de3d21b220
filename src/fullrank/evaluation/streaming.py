"""Binary metrics of rows that come in batches and are not kept: constant memory, and an AUC that says how wrong it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.evaluation.binary import normalise, row_losses, sigmoid
from fullrank.evaluation.checks import checked, undo_sampling


@dataclass(frozen=True, kw_only=True)
class StreamedMetrics:
    """What the rows so far give. The exact AUC lies within ``auc ± auc_bound``, whatever the scores; the other values
    are exact. nan where the metric is nan."""

    rows: int
    positives: int
    auc: float
    auc_bound: float
    log_loss: float
    normalised_entropy: float
    pcoc: float
    brier: float

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows, {self.positives:,} positive: AUC {self.auc:.6f} ± {self.auc_bound:.1g}, "
            f"log-loss {self.log_loss:.6f}, NE {self.normalised_entropy:.5f}, PCOC {self.pcoc:.4f}, "
            f"Brier {self.brier:.6f}"
        )


class StreamingBinaryMetrics:
    """Takes batches of labels and logits, in any order and cut anywhere; two of them merge into one.

    The AUC comes from a histogram of the logits of each class: `bins` equal bins over [-limit, limit), what lies
    outside in the outermost ones. With P positives and N negatives, p_b and n_b of them in bin b, and N_b negatives in
    the bins below:

    ``AUC = (Σ_b p_b (N_b + n_b / 2)) / (P N) ± (Σ_b p_b n_b / 2) / (P N)``

    for only the pairs that share a bin are not decided, and each counts 0 to 1 instead of ½: a hard bound, not a
    confidence interval. Rows count once for AUC, 1/sample_rate for the others, as in `metrics.py`.

    Args:
        limit: logits beyond ± limit are not told apart.
        bins: the bound shrinks with 1/bins as long as scores don't tie. The defaults (our choice) are 2 MB and bins
            2^-12 wide: a bound below 1e-4 where logits have a standard deviation of 1.

    Not for scores that are no logits, nor where a third digit behind the bound is to be read: `auc` (in memory) and
    `auc_of_chunks` (through files) are exact. Not per user: that needs each user's rows together.
    """

    def __init__(self, *, limit: float = 16.0, bins: int = 1 << 17):
        if not 0 < limit < float("inf") or bins < 1:
            raise ValueError(f"Expected a finite limit > 0 and at least 1 bin, got limit {limit} and {bins} bins.")
        self.limit, self.bins = limit, bins
        self._counts_2C = np.zeros((2, bins), dtype=np.int64)  # negatives, positives
        self._sums = np.zeros(5)  # weighted: negatives, positives, predicted, loss, squared error

    def update(self, labels: np.ndarray, logits: np.ndarray, sample_rate: np.ndarray | None = None) -> None:
        """Count one batch: labels 0/1, logits and sample rates (1 if None), one a row."""
        positive, logits = checked(labels, logits)
        counts = undo_sampling(sample_rate, len(logits))
        z = logits.astype(np.float64)
        # Every step is monotone, so rows of different bins are in the order of their logits: the bound rests on that.
        place = np.clip((z + self.limit) * (self.bins / (2 * self.limit)), 0, self.bins - 1).astype(np.int64)
        place += self.bins * positive
        self._counts_2C += np.bincount(place, minlength=2 * self.bins).reshape(2, self.bins)
        predicted = sigmoid(z)
        columns = (
            counts * ~positive,
            counts * positive,
            counts * predicted,
            counts * row_losses(positive, z),
            counts * (predicted - positive) ** 2,
        )
        self._sums += [column.sum() for column in columns]

    def merge(self, other: StreamingBinaryMetrics) -> None:
        """Add what `other` has counted: another process's share, another day."""
        mine, theirs = (self.limit, self.bins), (other.limit, other.bins)
        if mine != theirs:
            raise ValueError(f"Expected metrics of the same (limit, bins) to merge, {mine}, got {theirs}.")
        self._counts_2C += other._counts_2C
        self._sums += other._sums

    def result(self) -> StreamedMetrics:
        """The metrics of all rows so far."""
        counts_2C = self._counts_2C[:, self._counts_2C.any(axis=0)]
        neg_C, pos_C = counts_2C.astype(object)  # Python's integers: pairs outgrow 64 bits long before rows do
        positives, negatives = int(pos_C.sum()), int(neg_C.sum())
        unobserved, observed, predicted, loss, squared = self._sums.tolist()
        rows, pairs, nan = unobserved + observed, positives * negatives, float("nan")
        twice_won = (pos_C * (2 * (np.cumsum(neg_C) - neg_C) + neg_C)).sum()
        mean_loss = loss / rows if rows else nan
        return StreamedMetrics(
            rows=positives + negatives,
            positives=positives,
            auc=twice_won / (2 * pairs) if pairs else nan,
            auc_bound=(pos_C * neg_C).sum() / (2 * pairs) if pairs else nan,
            log_loss=mean_loss,
            normalised_entropy=normalise(mean_loss, observed, unobserved),
            pcoc=predicted / observed if observed else nan,
            brier=squared / rows if rows else nan,
        )
