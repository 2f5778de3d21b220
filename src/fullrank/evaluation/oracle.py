"""How good anybody could be, where the true probabilities are known: what models are held against on simulated logs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.evaluation.metrics import auc, log_loss, pcoc


@dataclass(frozen=True, kw_only=True)
class OracleMetrics:
    """The metrics of the true probabilities on labels drawn of them, and `entropy` (nats): the log-loss they have on
    average over all labels that might have been drawn. `spread`: the standard deviation of the log-loss around it."""

    rows: int
    positives: int
    auc: float
    log_loss: float
    entropy: float
    spread: float
    pcoc: float


def oracle_metrics(labels: np.ndarray, truth: np.ndarray) -> OracleMetrics:
    """The same metrics that models are judged by, of the true probabilities themselves.

    ``entropy = -1/N Σ_i p_i log p_i + (1 - p_i) log(1 - p_i)``, and the log-loss of N independent labels is
    entropy ± ``spread = 1/N sqrt(Σ_i p_i (1 - p_i) logit(p_i)²)``.

    Args:
        labels: 0/1, one a row.
        truth: the true P(label = 1) of the same rows, in (0, 1).

    A model can have a higher AUC than this by luck alone, within sampling error of the rows. Not for labels that
    were sampled: the truth is that of every row.
    """
    truth = np.asarray(truth, dtype=np.float64)
    wrong = np.flatnonzero(~((truth > 0.0) & (truth < 1.0)))
    if len(wrong):
        raise ValueError(f"Expected true probabilities in (0, 1), got {truth[wrong[0]]} in row {wrong[0]}.")
    logits = np.log(truth) - np.log1p(-truth)
    loss = log_loss(labels, logits)  # checks labels against the logits, first of all
    each = -(truth * np.log(truth) + (1.0 - truth) * np.log1p(-truth))
    variance = (truth * (1.0 - truth) * logits**2).sum()
    return OracleMetrics(
        rows=len(truth),
        positives=int(np.asarray(labels).sum()),
        auc=auc(labels, logits),
        log_loss=loss,
        entropy=float(each.mean()) if len(each) else float("nan"),
        spread=float(np.sqrt(variance) / len(truth)) if len(truth) else float("nan"),
        pcoc=pcoc(labels, logits),
    )


@dataclass(frozen=True, kw_only=True)
class Regret:
    """Per group, on average: the value of the best slate, of the chosen one, and the difference (≥ 0)."""

    groups: int
    best: float
    chosen: float
    regret: float


def slate_regret(values: np.ndarray, scores: np.ndarray, groups: np.ndarray, looks: np.ndarray) -> Regret:
    """What is lost by filling the slots of every group (a request) with its rows in the order of `scores`.

    A slate puts row r_s into slot s and is worth ``Σ_s looks[s] · values[r_s]``; the best one goes by the values. A
    group with fewer rows than slots leaves the last slots empty.

    Args:
        values: the true value of each row where it is looked at: P(click | look), or bid × P(click | look).
        scores: what the order is decided by; equal scores keep the order of the rows.
        groups: an integer a row.
        looks: P(look) of each slot, falling (or equal): one for each slot; `[1.0]` is a choice of one.

    It knows the rows it is given and no others: where the log chose them, the best of all ads may be better still.
    """
    values, scores, groups = np.asarray(values, dtype=np.float64), np.asarray(scores), np.asarray(groups)
    looks = np.asarray(looks, dtype=np.float64)
    if not values.shape == scores.shape == groups.shape or values.ndim != 1:
        got = f"shapes {values.shape}, {scores.shape} and {groups.shape}"
        raise ValueError(f"Expected one value, score and group a row, got {got}.")
    if looks.ndim != 1 or not len(looks) or (np.diff(looks) > 0).any() or (looks < 0).any():
        raise ValueError(f"Expected looks >= 0 that don't rise from slot to slot, got {looks.tolist()}.")
    number = len(np.unique(groups))
    if not number:
        return Regret(groups=0, best=float("nan"), chosen=float("nan"), regret=float("nan"))
    best, chosen = (_worth(values, by, groups, looks) / number for by in (values, scores))
    return Regret(groups=number, best=best, chosen=chosen, regret=best - chosen)


def _worth(values: np.ndarray, by: np.ndarray, groups: np.ndarray, looks: np.ndarray) -> float:
    """The sum of all groups' slates when rows are ordered by falling `by`."""
    order = np.lexsort((-by, groups))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(groups[order]) != 0]))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    shown = place < len(looks)
    return float((looks[place[shown]] * values[order][shown]).sum())
