"""Merge for a CPU: a radix sort of (row, place), then each run of equal rows is summed where it stands.

A thread takes the rows of a range of its own, from one end of the arena to the other; its sort reads and writes 16
bytes a row and digit of 12 bits, its sums gather gradients in the order of their rows, the next ones on their way. The
gradients of a row are added in the order they came in, by one thread: the number of threads changes no bit.
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
SAMPLE = 1024  # rows that the ranges are cut by


def merge_on_cpu(
    rows_N: Tensor, grads_nD: Tensor, sources_N: Tensor | None, dropped: Tensor
) -> tuple[Tensor, Tensor] | None:
    """`merge`; None where a row has more than 32 bits."""
    rows, width = rows_N.numpy(), grads_nD.shape[1]
    largest = int(rows.max(initial=0))
    if largest >> 32:
        return None
    parts = range(len(even_cuts(len(rows), GRAIN)))
    bounds = _ranges(rows, len(parts) - 1)
    digits = max(1, -(-largest.bit_length() // DIGIT))
    sort = lambda part, _: _sorted(rows, bounds[part], bounds[part + 1], digits, dropped.numpy())  # noqa: E731
    keys, uniques = zip(*in_parts(sort, parts), strict=True)
    first_U = np.cumsum([0, *uniques])
    rows_U, values_UD = np.empty(first_U[-1], dtype=np.int64), torch.empty(int(first_U[-1]), width)
    flat, sources = grads_nD.numpy().reshape(-1), rows_U if sources_N is None else sources_N.numpy()
    sums = _sums(width, sources_N is not None)

    def sum_part(part: int, _: int) -> None:
        own = slice(first_U[part], first_U[part + 1])
        sums(keys[part], dropped.numpy(), flat, sources, rows_U[own], values_UD[own].numpy().reshape(-1))

    in_parts(sum_part, parts)
    return torch.from_numpy(rows_U), values_UD


def _ranges(rows: np.ndarray, parts: int) -> list[int]:
    """Where the ranges of rows begin and end, about as many of `rows` in each."""
    if parts == 1:
        return [0, 1 << 32]
    scattered = np.arange(SAMPLE) * 2_654_435_761 % len(rows)  # rows stand by field: no fixed step
    sample = np.sort(rows[scattered])
    return [0, *(int(sample[SAMPLE * part // parts]) for part in range(1, parts)), 1 << 32]


@compiled
def _sorted(rows, low, high, digits, dropped):
    """The rows in `[low, high)` as row << 32 | place, ascending; how many there are, each once and none dropped."""
    num = 0
    for i in range(len(rows)):
        num += (rows[i] >= low) & (rows[i] < high)
    key, spare = np.empty(num + 1, np.uint64), np.empty(num + 1, np.uint64)
    to = 0
    for i in range(len(rows)):  # without a branch that nobody could foresee: what isn't ours is written over
        key[to] = (np.uint64(rows[i]) << np.uint64(32)) | np.uint64(i)
        to += (rows[i] >= low) & (rows[i] < high)
    mask = np.uint64((1 << DIGIT) - 1)
    count = np.zeros((digits, 1 << DIGIT), np.int32)
    for i in range(num):
        for p in range(digits):
            count[p, (key[i] >> np.uint64(32 + DIGIT * p)) & mask] += np.int32(1)
    for p in range(digits):
        begin, shift, places = np.int32(0), np.uint64(32 + DIGIT * p), count[p]
        for bucket in range(len(places)):
            size = places[bucket]
            places[bucket] = begin
            begin += size
        for i in range(num):
            bucket = (key[i] >> shift) & mask
            spare[places[bucket]] = key[i]
            places[bucket] += np.int32(1)
        key, spare = spare, key
    unique = 0
    for i in range(num):
        unique += i == 0 or (key[i] >> np.uint64(32)) != (key[i - 1] >> np.uint64(32))
    for row in dropped:
        place = np.searchsorted(key[:num], np.uint64(row) << np.uint64(32))
        unique -= place < num and np.int64(key[place] >> np.uint64(32)) == row
    return key[:num], unique


@cache
def _sums(width: int, has_sources: bool) -> Any:
    @compiled
    def body(key, dropped, grads, sources, rows, values):
        u = -1
        mask = np.uint64(0xFFFFFFFF)
        place = np.searchsorted(dropped, np.int64(key[0] >> np.uint64(32))) if len(key) else 0
        before = np.int64(-1)
        drop = False
        one = np.float32(1)
        for i in range(len(key)):
            ahead = np.int64(key[min(i + AHEAD, len(key) - 1)] & mask)
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
