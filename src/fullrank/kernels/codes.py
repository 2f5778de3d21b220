"""Codes (uint64 hashes, 0: missing): how often each comes, and where each is among sorted ones. n codes · U distinct.

In numpy, as are the columns of a log; no gradient passes here.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.bodies import worth_compiling

LEAST = 16_384  # codes
NEVER = np.iinfo(np.int64).min


def count(
    codes_n: np.ndarray, *, weights_n: np.ndarray | None = None, times_n: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(first_U, counts_U, last_U)`, int64, of every code but 0 in the order they first come in: where that is, the sum
    of its weights (1 each if None) and the greatest of its times (`NEVER` if None)."""
    if worth_compiling(len(codes_n), LEAST):
        from fullrank.kernels.cpu.codes import count_on_cpu

        return count_on_cpu(codes_n, weights_n, times_n)
    order = np.argsort(codes_n, kind="stable")
    ordered = codes_n[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    if len(starts) == 0:
        none = np.empty(0, dtype=np.int64)
        return none, none, none
    weights = np.ones(len(order), dtype=np.int64) if weights_n is None else weights_n[order]
    times = np.full(len(order), NEVER) if times_n is None else times_n[order]
    first, counts, last = order[starts], np.add.reduceat(weights, starts), np.maximum.reduceat(times, starts)
    chosen = np.argsort(first)
    chosen = chosen[codes_n[first[chosen]] != 0]
    return first[chosen], counts[chosen], last[chosen]


def find(
    codes_n: np.ndarray, sorted_U: np.ndarray, values_U: np.ndarray, starts: np.ndarray, shift: np.uint64
) -> np.ndarray:
    """`values_U[u]` where `sorted_U[u]` is the code, else -1; int32 [n].

    `sorted_U` ascends and ends with a code above all others, whose value is -1; `starts[code >> shift]` is where to
    look first, and the place is there or a few steps to the right."""
    if worth_compiling(len(codes_n), LEAST):
        from fullrank.kernels.cpu.codes import find_on_cpu

        return find_on_cpu(codes_n, sorted_U, values_U, starts, shift)
    place = starts[(codes_n >> shift).astype(np.int64)]
    found = sorted_U[place]
    walking = np.flatnonzero(found < codes_n)
    while len(walking):
        place[walking] += 1
        walking = walking[sorted_U[place[walking]] < codes_n[walking]]
    return np.where(sorted_U[place] == codes_n, values_U[place], np.int32(-1))


def shared_where_unknown(
    found_n: np.ndarray, codes_n: np.ndarray, *, own: int, unknown: int, shared: int, missing: int
) -> None:
    """What `find` gave, made ids in place: `own + found` where it is not -1, `unknown + code % shared` where it is, and
    `missing` where the code is 0 (which none of `find`'s codes is)."""
    if worth_compiling(len(codes_n), LEAST):
        from fullrank.kernels.cpu.codes import shared_where_unknown_on_cpu

        return shared_where_unknown_on_cpu(found_n, codes_n, own, unknown, shared, missing)
    lost = found_n < 0
    found_n += np.int32(own)
    found_n[lost] = unknown + (codes_n[lost] % np.uint64(shared)).astype(np.int32)
    found_n[codes_n == 0] = missing
    return None
