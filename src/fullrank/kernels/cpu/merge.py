"""Merge for a CPU: a radix sort of (row, place), then each run of equal rows is summed where it stands.

The sort reads and writes 16 bytes a row and digit of 12 bits; the sums gather gradients in the order of their rows, the
next ones on their way. The gradients of a row are added in the order they came in, by one thread: the number of threads
changes no bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import add_row, compiled, copy_row, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 16  # gradients between asking for one and adding it
GRAIN = 4096  # rows a thread
DIGIT = 12  # bits: 4,096 counters of 4 bytes stay in the first cache


def merge_on_cpu(
    rows_N: Tensor, grads_nD: Tensor, sources_N: Tensor | None, dropped: Tensor
) -> tuple[Tensor, Tensor] | None:
    """`merge`; None where a row has more than 32 bits."""
    key_N = np.empty(len(rows_N), dtype=np.uint64)
    if not _sort(rows_N.numpy(), key_N, np.empty_like(key_N), np.empty((3, 1 << DIGIT), dtype=np.int64)):
        return None
    cuts = _at_runs(key_N, even_cuts(len(key_N), GRAIN))
    uniques = in_parts(_count, cuts, key_N, dropped.numpy())
    first_U = np.cumsum([0, *uniques])
    rows_U = np.empty(first_U[-1], dtype=np.int64)
    width = grads_nD.shape[1]
    values_UD = torch.empty(len(rows_U), width)
    in_parts(
        _sums(width, sources_N is not None),
        cuts,
        np.asarray(cuts),
        first_U,
        key_N,
        dropped.numpy(),
        grads_nD.numpy().reshape(-1),
        rows_U if sources_N is None else sources_N.numpy(),
        rows_U,
        values_UD.numpy().reshape(-1),
    )
    return torch.from_numpy(rows_U), values_UD


def _at_runs(key_N: np.ndarray, cuts: list[int]) -> list[int]:
    """The cuts moved to where the next row begins, so that no row is cut."""
    last_of_row = key_N[np.asarray(cuts[1:-1], dtype=np.int64) - 1] | np.uint64(0xFFFFFFFF)
    return [0, *np.searchsorted(key_N, last_of_row, side="right").tolist(), len(key_N)]


@compiled
def _sort(rows, key, spare, count):
    """key = rows << 32 | place, ascending. False where a row needs more than 32 bits."""
    digit = np.uint64(count.shape[1] - 1)
    largest = np.int64(0)
    for i in range(len(rows)):
        largest = max(largest, rows[i])
    if largest >> 32:
        return False
    passes = 1
    while largest >> (DIGIT * passes):
        passes += 1
    count[:passes] = 0
    for i in range(len(rows)):
        row = np.uint64(rows[i])
        for p in range(passes):
            count[p, (row >> np.uint64(DIGIT * p)) & digit] += 1
    for p in range(passes):
        begin = 0
        for bucket in range(count.shape[1]):
            size = count[p, bucket]
            count[p, bucket] = begin
            begin += size
    # Each pass goes from one buffer to the other, and the last must end in `key`.
    if passes % 2:
        to, other = key, spare
    else:
        to, other = spare, key
    for i in range(len(rows)):
        row = np.uint64(rows[i])
        place = count[0, row & digit]
        count[0, row & digit] = place + 1
        to[place] = (row << np.uint64(32)) | np.uint64(i)
    for p in range(1, passes):
        to, other = other, to
        shift = np.uint64(32 + DIGIT * p)
        for i in range(len(rows)):
            bucket = (other[i] >> shift) & digit
            place = count[p, bucket]
            count[p, bucket] = place + 1
            to[place] = other[i]
    return True


@compiled
def _count(low, high, key, dropped):
    """How many rows of this part are not dropped."""
    unique = 0
    place = np.searchsorted(dropped, np.int64(key[low] >> np.uint64(32))) if low < high else 0
    before = np.int64(-1)
    for i in range(low, high):
        row = np.int64(key[i] >> np.uint64(32))
        if row != before:
            before = row
            while place < len(dropped) and dropped[place] < row:
                place += 1
            unique += not (place < len(dropped) and dropped[place] == row)
    return unique


@cache
def _sums(width: int, has_sources: bool) -> Any:
    @compiled
    def body(low, high, cuts, first, key, dropped, grads, sources, rows, values):
        part = np.searchsorted(cuts, low, side="right") - 1
        u = first[part] - 1
        mask = np.uint64(0xFFFFFFFF)
        place = np.searchsorted(dropped, np.int64(key[low] >> np.uint64(32))) if low < high else 0
        before = np.int64(-1)
        drop = False
        one = np.float32(1)
        for i in range(low, high):
            ahead = np.int64(key[min(i + AHEAD, high - 1)] & mask)
            source = np.int64(key[i] & mask)
            if has_sources:
                ahead, source = sources[ahead], sources[source]
            prefetch(grads, ahead * width)
            row = np.int64(key[i] >> np.uint64(32))
            if row != before:
                before = row
                while place < len(dropped) and dropped[place] < row:
                    place += 1
                drop = place < len(dropped) and dropped[place] == row
                if not drop:
                    u += 1
                    rows[u] = row
                    copy_row(values, u * width, grads, source * width, width)
            elif not drop:
                add_row(values, u * width, grads, source * width, one, width)

    return body
