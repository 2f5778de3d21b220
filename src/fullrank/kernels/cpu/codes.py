"""Codes for a CPU: counted in a table, found a code at a time."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled, prefetch
from fullrank.kernels.cpu.open_table import BEGIN, begin, table_of, twice
from fullrank.kernels.cpu.texts import fixed

AHEAD = 8  # codes between asking for a place and looking there
NEVER = np.iinfo(np.int64).min
_NONE = np.empty(0, dtype=np.int64)


def count_on_cpu(
    codes_n: np.ndarray, weights_n: np.ndarray | None, times_n: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count`."""
    weights, times = (fixed(_NONE if each is None else each) for each in (weights_n, times_n))
    *found, num = _count(fixed(codes_n), weights, times)
    first, counts, last = (part[:num] for part in found)
    return first, counts, last


@compiled
def _count(codes, weights, times):
    unique, first = np.empty(BEGIN, np.uint64), np.empty(BEGIN, np.int64)
    counts, last = np.empty(BEGIN, np.int64), np.empty(BEGIN, np.int64)
    at, num = _enter(0, 0, codes, weights, times, table_of(unique, 0), unique, first, counts, last)
    while at < len(codes):
        unique, first, counts, last = twice(unique), twice(first), twice(counts), twice(last)
        at, num = _enter(at, num, codes, weights, times, table_of(unique, num), unique, first, counts, last)
    return first, counts, last, num


@compiled
def _enter(at, num, codes, weights, times, table, unique, first, counts, last):
    """Codes from number `at` on, until there is no room for another; where that is, and how many are distinct."""
    mask = len(table) - 1
    for i in range(at, len(codes)):
        code = codes[i]
        if code == 0:
            continue
        prefetch(table, begin(codes[min(i + AHEAD, len(codes) - 1)], mask))
        place = begin(code, mask)
        found = np.int64(table[place])
        while found >= 0 and unique[found] != code:
            place = (place + 1) & mask
            found = np.int64(table[place])
        if found < 0:
            if num == len(unique):
                return i, num
            found = num
            table[place] = found
            unique[num], first[num], counts[num], last[num] = code, i, 0, NEVER
            num += 1
        counts[found] += weights[i] if len(weights) else 1
        if len(times):
            last[found] = max(last[found], times[i])
    return len(codes), num


def find_on_cpu(
    codes_n: np.ndarray, sorted_U: np.ndarray, values_U: np.ndarray, starts: np.ndarray, shift: np.uint64
) -> np.ndarray:
    """`find`."""
    found = np.empty(len(codes_n), dtype=np.int32)
    _find(fixed(codes_n), fixed(sorted_U), fixed(values_U), fixed(starts), shift, found)
    return found


@compiled
def _find(codes, ordered, values, starts, shift, found):
    for i in range(len(codes)):
        prefetch(starts, np.int64(codes[min(i + AHEAD, len(codes) - 1)] >> shift))
        code = codes[i]
        place = np.int64(starts[np.int64(code >> shift)])
        while ordered[place] < code:
            place += 1
        found[i] = values[place] if ordered[place] == code else np.int32(-1)


def shared_where_unknown_on_cpu(
    found_n: np.ndarray, codes_n: np.ndarray, own: int, unknown: int, shared: int, missing: int
) -> None:
    """`shared_where_unknown`."""
    _share(found_n, fixed(codes_n), own, unknown, np.uint64(shared), missing)


@compiled
def _share(found, codes, own, unknown, shared, missing):
    for i in range(len(codes)):
        if found[i] >= 0:
            found[i] += own
        else:
            found[i] = unknown + np.int64(codes[i] % shared) if codes[i] != 0 else missing
