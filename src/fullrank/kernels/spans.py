"""Spans of a flat column copied one behind the other: the events of many requests. R spans · E events of all.

In numpy, as are the columns of prepared data: they lie in files, and no gradient passes here.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.bodies import worth_compiling

LEAST = 4096  # events


def copy_spans(
    values: np.ndarray,
    start_R: np.ndarray,
    to_R: np.ndarray,
    length_R: np.ndarray,
    out_E: np.ndarray,
    *,
    known_at: np.ndarray | None = None,
    before_R: np.ndarray | None = None,
) -> None:
    """`out_E[to_R[r] + i] = values[start_R[r] + i]` for i < `length_R[r]` (all int64), in the type of `out_E`.

    `out_E` may be a column of a matrix. With `known_at` (a column beside `values`) and `before_R`: NaN unless
    `known_at[start_R[r] + i] < before_R[r]`.
    """
    num = int(length_R.sum())
    if worth_compiling(num, LEAST):
        from fullrank.kernels.cpu.spans import copy_spans_on_cpu

        return copy_spans_on_cpu(values, start_R, to_R, length_R, out_E, known_at, before_R)
    ends = np.cumsum(length_R)
    within_E = np.arange(num) - np.repeat(ends - length_R, length_R)
    from_E = within_E + np.repeat(start_R, length_R)
    found_E = values[from_E]
    if known_at is not None and before_R is not None:
        found_E = np.where(known_at[from_E] < np.repeat(before_R, length_R), found_E, np.float32(np.nan))
    out_E[within_E + np.repeat(to_R, length_R)] = found_E
    return None
