"""The metrics of every slice of a split, with intervals over users; small slices stay hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fullrank.evaluation.bootstrap import DEFAULT, BootstrapConfig, Interval, clustered_bootstrap
from fullrank.evaluation.evaluate import Metrics, Predictions, RegressionMetrics
from fullrank.evaluation.slices import Cut

LEAST_USERS = 20


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice: `users` with a row of known label, the metrics, and the bootstrap interval of some of them."""

    slice: str
    users: int
    metrics: Metrics | RegressionMetrics
    intervals: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class SliceTable:
    """A task's slices by `by`, in the order of the cut; `hidden` slices, of `hidden_rows` rows, have too few users."""

    by: str
    task: str
    rows: tuple[SliceRow, ...]
    hidden: int
    hidden_rows: int


def slice_metrics(
    predictions: Predictions,
    task: str,
    cut: Cut,
    slice_N: np.ndarray,
    bootstrap: BootstrapConfig | None = DEFAULT,
    least_users: int = LEAST_USERS,
) -> SliceTable:
    """The metrics of a task in every slice (and in the rows of none, named `cut.rest`) over rows of known label.

    Args:
        slice_N: each row's slice (`cut.slice_of`), in the order of the predictions.
        bootstrap: of the intervals; none if None.
        least_users: slices with fewer users are counted and not shown: a rate of few people says what each did. In a
            log without users it is the least number of rows (our choice).

    Every slice resamples its own users. Many slices have many chances to look special: one interval in ten misses by
    chance. Hiding is no proof against subtraction: all rows less the slices shown are the hidden ones.
    """
    known = predictions.known_NK[:, predictions.column(task)]
    if len(slice_N) != len(known):
        raise ValueError(f"Expected one slice a row ({len(known)}), got {len(slice_N)}: slices are of another split?")
    order = np.argsort(slice_N, kind="stable")
    bounds = np.searchsorted(slice_N[order], np.arange(-1, len(cut.names) + 1))
    shown, hidden, hidden_rows = [], 0, 0
    has_users = bool(predictions.user_N.any())
    for number in [*range(len(cut.names)), -1]:
        index = np.sort(order[bounds[number + 1] : bounds[number + 2]])
        count = int(known[index].sum())
        if not count:
            continue
        user = np.unique(predictions.user_N[index[known[index]]])
        users = int((user != 0).sum())
        if (users if has_users else count) < least_users:
            hidden, hidden_rows = hidden + 1, hidden_rows + count
            continue
        rows = predictions.rows(index)
        shown.append(
            SliceRow(
                slice=cut.names[number] if number >= 0 else cut.rest,
                users=users,
                metrics=rows.task_metrics(task),
                intervals=clustered_bootstrap(rows, task, bootstrap) if bootstrap else {},
            )
        )
    return SliceTable(by=cut.by, task=task, rows=tuple(shown), hidden=hidden, hidden_rows=hidden_rows)
