"""The gradient of an arena: which rows, and how much."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RowGrads:
    """The gradient of some rows of one arena: `rows_U` (int64, ascending, each once) and `values_UD`.

    Rows whose duplicates have been summed, so `sq_norm` is the squared norm of the true gradient.
    """

    rows_U: Tensor
    values_UD: Tensor

    @property
    def sq_norm(self) -> Tensor:
        """The sum of squares of the gradient, a scalar tensor (float32 at least)."""
        dtype = torch.promote_types(self.values_UD.dtype, torch.float32)
        return torch.linalg.vector_norm(self.values_UD, dtype=dtype).square()

    def scaled(self, scale: float) -> RowGrads:
        return self if scale == 1 else replace(self, values_UD=self.values_UD * scale)

    def __add__(self, other: RowGrads) -> RowGrads:
        if not len(self.rows_U):
            return other
        if not len(other.rows_U):
            return self
        return sum_duplicates(torch.cat([self.rows_U, other.rows_U]), torch.cat([self.values_UD, other.values_UD]))


def sum_duplicates(rows_N: Tensor, values_ND: Tensor) -> RowGrads:
    """Values of equal rows summed; the same input gives the same bits every time."""
    if not len(rows_N):
        return RowGrads(rows_N, values_ND)
    sorted_N, order_N = torch.sort(rows_N, stable=True)
    first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    torch.ne(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    starts_U = first_N.nonzero().squeeze(-1)
    # A run of equal rows is a bag: one fused gather-and-sum, half the time of sort + index_add.
    values_UD = F.embedding_bag(order_N, values_ND, starts_U, mode="sum")
    return RowGrads(sorted_N[starts_U], values_UD)
