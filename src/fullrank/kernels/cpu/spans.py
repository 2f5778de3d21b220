"""Spans for a CPU: each is read front to back, the beginnings of the next on their way."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 4  # spans between asking for the beginning of one and reading it
GRAIN = 128  # spans a thread


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
    cuts, spans = even_cuts(len(start_R), GRAIN), (start_R, to_R, length_R)
    values = np.asarray(values)  # not a map of a file, which is another type to the compiler
    if known_at is None or before_R is None:
        in_parts(_copy, cuts, values, *spans, out_E)
    else:
        in_parts(_copy_known, cuts, values, *spans, out_E, np.asarray(known_at), before_R)


@compiled
def _copy(low, high, values, start, to, length, out):
    for r in range(low, high):
        prefetch(values, start[min(r + AHEAD, high - 1)])
        first, place = start[r], to[r]
        for i in range(length[r]):
            out[np.uint64(place + i)] = values[np.uint64(first + i)]  # unsigned: never counted from the end


@compiled
def _copy_known(low, high, values, start, to, length, out, known_at, before):
    for r in range(low, high):
        ahead = start[min(r + AHEAD, high - 1)]
        prefetch(values, ahead)
        prefetch(known_at, ahead)
        first, place, asked = start[r], to[r], before[r]
        for i in range(length[r]):
            known = known_at[np.uint64(first + i)] < asked
            out[np.uint64(place + i)] = values[np.uint64(first + i)] if known else np.float32(np.nan)
