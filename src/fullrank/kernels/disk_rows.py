"""Rows of a table that lies in files, but for those held in memory.

N rows asked for · S rows in all · C rows held · W numbers stored a row · D of them read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.bodies import worth_compiling

LEAST = 512  # rows: fewer than elsewhere, since the compiled body also asks the disk for many at once


@dataclass(frozen=True)
class Chunks:
    """The files of a table, mapped into memory: row r is row `r % rows` of `arrays[r // rows]`, each `[rows, W]` of
    float32, contiguous (the last one of a table may be shorter). `rows` is a power of two. `addresses` are where each
    begins."""

    arrays: tuple[np.ndarray, ...]
    rows: int
    width: int
    addresses: np.ndarray

    @staticmethod
    def of(arrays: Sequence[np.ndarray], rows: int) -> Chunks:
        addresses = np.array([array.ctypes.data for array in arrays], dtype=np.int64)
        return Chunks(tuple(arrays), rows, arrays[0].shape[1], addresses)


@dataclass(frozen=True)
class Held:
    """Rows that memory has a newer version of: row r is `rows_CD[slot_S[r]]` where its slot (int32) is not 0."""

    slot_S: Tensor
    rows_CD: Tensor


def read_rows(chunks: Chunks, rows_N: Tensor, count: int, held: Held | None = None) -> Tensor:
    """`x_NC`: the first `count` numbers of every row (int64, each one that there is), the held ones from memory
    (`count` is their width then).

    Reading what the system has not in memory waits for the disk: many rows are read at once.
    """
    if worth_compiling(len(rows_N), LEAST):
        from fullrank.kernels.cpu.disk_rows import read_rows_on_cpu

        return read_rows_on_cpu(chunks, rows_N, count, held)
    rows = rows_N.numpy()
    x_NC = np.empty((len(rows), count), dtype=np.float32)
    chunk_N, place_N = np.divmod(rows, chunks.rows)
    for chunk in np.unique(chunk_N):
        mine = np.flatnonzero(chunk_N == chunk)
        x_NC[mine] = chunks.arrays[chunk][place_N[mine], :count]
    x = torch.from_numpy(x_NC)
    if held is not None:
        slot_N = held.slot_S.index_select(0, rows_N).long()
        x = torch.where(slot_N.unsqueeze(-1) > 0, held.rows_CD.index_select(0, slot_N), x)
    return x
