"""Spans for a CPU: each is read front to back, the beginnings of the next on their way.

One thread: a batch's spans take some tenth of a millisecond, and batches are made on several threads already.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled, prefetch

AHEAD = 4  # spans between asking for the beginning of one and reading it


def copy_spans_on_cpu(
    values: np.ndarray,
    start_R: np.ndarray,
    to_R: np.ndarray,
    length_R: np.ndarray,
    out_E: np.ndarray,
    known_at: np.ndarray | None,
    before_R: np.ndarray | None,
) -> None:
    """`copy_spans`."""
    spans = (start_R, to_R, length_R)
    values = np.asarray(values)  # not a map of a file, which is another type to the compiler
    if known_at is None or before_R is None:
        _copy(values, *spans, out_E)
    else:
        _copy_known(values, *spans, out_E, np.asarray(known_at), before_R)


@compiled
def _copy(values, start, to, length, out):
    for r in range(len(start)):
        prefetch(values, start[min(r + AHEAD, len(start) - 1)])
        first, place = start[r], to[r]
        for i in range(length[r]):
            out[np.uint64(place + i)] = values[np.uint64(first + i)]  # unsigned: never counted from the end


@compiled
def _copy_known(values, start, to, length, out, known_at, before):
    for r in range(len(start)):
        ahead = start[min(r + AHEAD, len(start) - 1)]
        prefetch(values, ahead)
        prefetch(known_at, ahead)
        first, place, asked = start[r], to[r], before[r]
        for i in range(length[r]):
            known = known_at[np.uint64(first + i)] < asked
            out[np.uint64(place + i)] = values[np.uint64(first + i)] if known else np.float32(np.nan)
