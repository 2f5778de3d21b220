"""Exact sums for a CPU: one pass."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.texts import fixed


def add_exactly_on_cpu(numbers: np.ndarray, sums: np.ndarray) -> int:
    """`add_exactly`."""
    return _add(fixed(np.ascontiguousarray(numbers).view(np.uint32)), sums)


@compiled
def _add(bits, sums):
    num = 0
    for i in range(len(bits)):
        rest = np.int64(bits[i] & np.uint32(0x7FFFFFFF))
        if rest > 0x7F800000:  # NaN
            continue
        num += 1
        exponent = rest >> 23
        mantissa = rest & 0x7FFFFF
        if exponent > 0:
            mantissa |= 0x800000
        else:
            exponent = 1
        square = mantissa * mantissa
        sums[0, exponent] += -mantissa if bits[i] >> np.uint32(31) else mantissa
        sums[1, exponent] += square >> 24
        sums[2, exponent] += square & 0xFFFFFF
    return num
