"""Rows of an arena by the local ids of several tables at once. n owners · F columns · R rows · D width."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.kernels.bodies import runs_compiled, runs_triton

LEAST = 8192  # ids


class IdOutOfRange(IndexError):
    """An id that is not a row of its column's table."""

    def __init__(self, column: int, id: int) -> None:
        super().__init__(f"Expected ids of column {column} to be rows of its table, got {id}.")
        self.column, self.id = column, id


def gather(weight_RD: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> tuple[Tensor, Tensor]:
    """`x_nFD[n, f] = weight_RD[base_F[f] + ids_nF[n, f]]`, and those rows (int64, `[n, F]`); any leading axes.

    Every id is compared with its table's size `num_rows_F`, so that none reads a neighbour's row: the first column with
    an id outside is an `IdOutOfRange`.
    """
    if runs_compiled(ids_nF.numel(), LEAST, weight_RD) and ids_nF.is_contiguous():
        from fullrank.kernels.cpu.gather import gather_on_cpu

        found = gather_on_cpu(weight_RD, ids_nF, base_F, num_rows_F)
        if found is not None:
            return found
    elif runs_triton(weight_RD) and ids_nF.is_contiguous():
        from fullrank.kernels.gpu.gather import gather_on_gpu

        found = gather_on_gpu(weight_RD, ids_nF, base_F, num_rows_F)
        if found is not None:
            return found
    rows_nF = checked_rows(ids_nF, base_F, num_rows_F)
    return F.embedding(rows_nF, weight_RD), rows_nF


def checked_rows(ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor) -> Tensor:
    """rows_nF, the row of every id, each compared with its table's size as in `gather`."""
    if ids_nF.numel():
        low_F, high_F = torch.aminmax(ids_nF.reshape(-1, ids_nF.shape[-1]), dim=0)
        bad_F = (low_F < 0) | (high_F >= num_rows_F)
        if bad_F.any():
            column = int(bad_F.nonzero()[0])
            raise IdOutOfRange(column, int(low_F[column] if low_F[column] < 0 else high_F[column]))
    return ids_nF + base_F
