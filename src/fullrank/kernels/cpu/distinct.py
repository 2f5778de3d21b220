"""Distinct texts for a CPU: a table of the texts met so far, which grows with them.

A text's first eight bytes and its length are mixed so that no two of equal length mix to one: shorter texts are
compared by 64 bits that lie together, only longer ones where they stand.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.open_table import BEGIN, begin, table_of, twice
from fullrank.kernels.cpu.texts import at_least_a_word, fixed, word

FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # odd: products are bijections


def distinct_on_cpu(offsets: np.ndarray, data: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`distinct`, with the row that each distinct text first comes in (int64) in place of the text; `valid` is empty
    where no row is null."""
    data = at_least_a_word(data)
    index = np.empty(len(offsets) - 1, dtype=np.int32)
    first, num = _distinct(fixed(offsets), data.ctypes.data, data.ctypes.data + len(data), fixed(valid), index)
    return index, first[:num]


@compiled
def _distinct(offsets, data, end, valid, index):
    mixed, first = np.empty(BEGIN, np.uint64), np.empty(BEGIN, np.int64)
    row, num = _enter(0, 0, offsets, data, end, valid, index, table_of(mixed, 0), mixed, first)
    while row < len(index):
        mixed, first = twice(mixed), twice(first)
        row, num = _enter(row, num, offsets, data, end, valid, index, table_of(mixed, num), mixed, first)
    return first, num


@compiled
def _enter(start, num, offsets, data, end, valid, index, table, mixed, first):
    """Rows from `start` on, until there is no room for another text; where that is, and how many texts there are."""
    mask = len(table) - 1
    for row in range(start, len(index)):
        if len(valid) and not valid[row]:
            index[row] = -1
            continue
        text, length = data + offsets[row], offsets[row + 1] - offsets[row]
        mix = _mix(text, length, end)
        place = begin(mix, mask)
        found = np.int64(table[place])
        while found >= 0:
            if mixed[found] == mix:
                other = offsets[first[found]]
                if _same(text, length, data + other, offsets[first[found] + 1] - other, end):
                    break
            place = (place + 1) & mask
            found = np.int64(table[place])
        if found < 0:
            if num == len(first):
                return row, num
            found = num
            table[place] = found
            mixed[num], first[num] = mix, row
            num += 1
        index[row] = found
    return len(index), num


@compiled
def _mix(text, length, end):
    mix = (word(text, length, end) ^ np.uint64(length) * SECOND) * FIRST
    mix ^= mix >> np.uint64(32)
    for done in range(8, length, 8):
        mix = (mix ^ word(text + done, length - done, end)) * FIRST
        mix ^= mix >> np.uint64(32)
    return mix


@compiled
def _same(text, length, other, others, end):
    """Whether a text is the `other`, of length `others`, where both mix to one number."""
    if others != length:
        return False
    if length > 8:
        for done in range(0, length, 8):
            if word(text + done, length - done, end) != word(other + done, length - done, end):
                return False
    return True
