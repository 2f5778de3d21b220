"""Sums of float32 numbers and of their squares, without rounding.

A float32 is a 24-bit integer times a power of two. Integers are added per exponent, so that a sum cannot depend on the
order or the cuts of its numbers, nor on which body adds them.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.bodies import worth_compiling

LEAST = 16_384  # numbers


def add_exactly(numbers: np.ndarray, sums: np.ndarray) -> int:
    """Add float32 `numbers` that are not NaN to `sums`, and say how many they are.

    `sums`: int64 [3, 256], by exponent: of mantissas (24 bits, signed), and of the upper and lower 24 bits of their
    squares. Exponent 0 stays empty: subnormal numbers have that of the least normal ones. Not for more than 2^39
    numbers.
    """
    if worth_compiling(len(numbers), LEAST):
        from fullrank.kernels.cpu.exact_sums import add_exactly_on_cpu

        return add_exactly_on_cpu(numbers, sums)
    bits = numbers[~np.isnan(numbers)].view(np.uint32)
    exponent = ((bits >> 23) & 255).astype(np.int64)
    mantissa = (bits & 0x7FFFFF).astype(np.int64) | ((exponent > 0).astype(np.int64) << 23)
    exponent = np.maximum(exponent, 1)
    squares = mantissa * mantissa
    signed = np.where(bits >> 31, -mantissa, mantissa)
    for place, part in enumerate((signed, squares >> 24, squares & 0xFFFFFF)):  # each below 2^24: exact as float64
        sums[place] += np.bincount(exponent, weights=part, minlength=256).astype(np.int64)
    return len(bits)
