"""Canonical decimals for a CPU: a text is left at its first byte that is no digit."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.texts import fixed

MINUS, ZERO, NINE = ord("-"), ord("0"), ord("9")
LARGEST = np.uint64((1 << 63) - 1)
DIGITS = 19  # of the largest int64: so many never exceed 64 bits


def integers_on_cpu(offsets: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`integers`."""
    is_integer, integer = np.empty(len(offsets) - 1, dtype=bool), np.zeros(len(offsets) - 1, dtype=np.int64)
    _read(fixed(offsets), fixed(data), is_integer, integer)
    return is_integer, integer


@compiled
def _read(offsets, data, is_integer, integer):
    for i in range(len(is_integer)):
        begin, end = offsets[i], offsets[i + 1]
        negative = begin < end and data[begin] == MINUS
        first = begin + np.int64(negative)
        good = first < end and end - first <= DIGITS and (data[first] != ZERO or (end - begin == 1))
        value = np.uint64(0)
        at = first
        while good and at < end:
            good = ZERO <= data[at] <= NINE
            value = value * np.uint64(10) + np.uint64(data[at] - ZERO)
            at += 1
        good = good and value <= LARGEST + np.uint64(negative)
        is_integer[i] = good
        if good:
            integer[i] = np.int64(np.uint64(0) - value if negative else value)
