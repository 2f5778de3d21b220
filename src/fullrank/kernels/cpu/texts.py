"""Texts for a CPU: bytes read eight at a time, whatever they are aligned to.

Texts come as Arrow keeps them: text i is `data[offsets[i]:offsets[i + 1]]`, of bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fullrank.kernels.cpu.compiled import compiled, intrinsic


def fixed(array: np.ndarray) -> np.ndarray:
    """The array as one that can't be written to, as Arrow's are: another type to the compiler, which compiles once."""
    view = np.asarray(array).view()  # not a map of a file, which would be a third
    view.flags.writeable = False
    return view


def at_least_a_word(data: np.ndarray) -> np.ndarray:
    """The bytes, where `word` can read eight at once."""
    return data if len(data) >= 8 else np.append(data, np.zeros(8, dtype=np.uint8))


@intrinsic
def _eight(_: Any, address: Any) -> Any:
    """The eight bytes at `address`, the first one lowest."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        found.align = 1
        return found

    return types.uint64(types.int64), codegen


@compiled
def word(address, num, end):
    """The `num` bytes from `address` on as one number, the first one lowest; at most eight count, and 0 if there is
    none. Nothing from `end` on is read, but up to seven bytes before. Addresses, since an array's references would be
    counted at every call."""
    if num <= 0:
        return np.uint64(0)
    beyond = max(address + 8 - end, 0)
    found = _eight(address - beyond) >> np.uint64(8 * beyond)
    return found if num >= 8 else found & ((np.uint64(1) << np.uint64(8 * num)) - np.uint64(1))
