"""Top k for a CPU: a block of items is scored by torch, and scores above a query's bar are noted while in the cache.

A note is one number that sorts as (score descending, item ascending). A query's bar is its k-th best score when its
notes were last sorted, which they are when there is no more room; of a million items in random order a few hundred
pass it after the first block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.parts import even_cuts, in_parts

BLOCK = 1 << 19  # scores at a time, 2 MB: they stay in a second cache
MOST = 1024  # queries at a time
ROOM = 512  # notes beyond k
CHUNK = 64  # scores compared before it is asked whether any passed
GRAIN = 1  # queries a thread


def top_k_on_cpu(queries_QD: Tensor, items_ND: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """`top_k`; None where some score is NaN."""
    parts = []
    for some_QD in queries_QD.split(MOST):
        found = _top_k(some_QD, items_ND, k)
        if found is None:
            return None
        parts.append(found)
    scores_Qk, items_Qk = (torch.cat(part) for part in zip(*parts, strict=True))
    return scores_Qk, items_Qk


def _top_k(queries_QD: Tensor, items_ND: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    num = len(queries_QD)
    notes = np.empty((num, k + max(k, ROOM)), dtype=np.int64)
    counts = np.zeros(num, dtype=np.int64)
    bars = np.full(num, np.nan, dtype=np.float32)  # nothing is at most NaN: every score passes
    cuts = even_cuts(num, GRAIN)
    block = max(1, BLOCK // num)
    room = torch.empty(num * min(block, len(items_ND)))
    for first in range(0, len(items_ND), block):
        items_BD = items_ND[first : first + block]
        scores_QB = room[: num * len(items_BD)].view(num, len(items_BD))
        torch.mm(queries_QD, items_BD.T, out=scores_QB)
        scores = scores_QB.numpy()
        if not all(in_parts(_note, cuts, scores, scores.view(np.int32), first, notes, counts, bars, k)):
            return None
    scores_Qk, items_Qk = np.empty((num, k), dtype=np.int32), np.empty((num, k), dtype=np.int64)
    in_parts(_finish, cuts, notes, counts, scores_Qk, items_Qk)
    return torch.from_numpy(scores_Qk.view(np.float32)), torch.from_numpy(items_Qk)


@compiled
def _word(note):
    """The bits of the score of a note."""
    order = ~(note >> 32)
    return np.int32(order ^ 0x7FFFFFFF if order < 0 else order)


@compiled
def _note(low, high, scores, bits, first, notes, counts, bars, k):
    """False where a score is NaN."""
    for q in range(low, high):
        bar, count = bars[q], counts[q]
        for begin in range(0, scores.shape[1], CHUNK):
            some = scores[q, begin : begin + CHUNK]
            passed = np.int32(0)
            for b in range(len(some)):  # 32 bits wide as the scores, which makes a vector loop of it
                passed += np.int32(not (some[b] <= bar))
            if passed == 0:
                continue
            for b in range(begin, begin + len(some)):
                score = scores[q, b]
                if score <= bar:
                    continue
                if np.isnan(score):
                    return False
                # Numbers in the order of the floats; -0.0 is 0.0.
                word = np.int64(bits[q, b]) if score != 0 else np.int64(0)
                order = word ^ 0x7FFFFFFF if word < 0 else word
                notes[q, count] = (~order << 32) | (first + b)
                count += 1
                if count == notes.shape[1]:
                    notes[q].sort()
                    count = k
                    bar = np.int32(_word(notes[q, k - 1])).view(np.float32)
        bars[q], counts[q] = bar, count
    return True


@compiled
def _finish(low, high, notes, counts, words, items):
    """Of every query the best notes, taken apart."""
    for q in range(low, high):
        noted = notes[q, : counts[q]]
        noted.sort()
        for place in range(words.shape[1]):
            words[q, place] = _word(noted[place])
            items[q, place] = noted[place] & 0xFFFFFFFF
