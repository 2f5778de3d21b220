"""The metrics of rows in memory, under one name: exact, in float64, without dependence on row order.

Two kinds, weighted differently, and each says how. *Ranking* metrics (`auc`, `auc_per_user`, `auc_per_group`,
`ranking_metrics`) count every kept row once: keeping only a share of the negatives at random leaves the AUC unchanged
in expectation. *Probability* metrics (`log_loss`, `normalised_entropy`, `brier`, `pcoc`, `ece`) do not survive
sampling, so a row of which the share s was kept counts 1/s.

Rows that don't fit into memory: `streaming.py` (constant memory, AUC with a bound on its error) and `large_auc.py`
(exact, through files). A positive among the whole catalogue: `full_ranking.py`. Another policy's value from this log:
`off_policy.py`.
"""

from __future__ import annotations

from fullrank.evaluation.auc import (
    GroupAuc,
    GroupAucs,
    PerUserAuc,
    Weighting,
    auc,
    auc_per_group,
    auc_per_user,
    group_aucs,
)
from fullrank.evaluation.binary import brier, ece, log_loss, normalised_entropy, pcoc, sigmoid
from fullrank.evaluation.ranking import RankingMetrics, ranking_metrics
from fullrank.evaluation.regression import mae, mse, r2

__all__ = [
    "GroupAuc",
    "GroupAucs",
    "PerUserAuc",
    "RankingMetrics",
    "Weighting",
    "auc",
    "auc_per_group",
    "auc_per_user",
    "brier",
    "ece",
    "group_aucs",
    "log_loss",
    "mae",
    "mse",
    "normalised_entropy",
    "pcoc",
    "r2",
    "ranking_metrics",
    "sigmoid",
]
