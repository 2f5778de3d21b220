"""The gradient of an arena: which rows, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.features.arena_weight import LookUpGrad
from fullrank.kernels.merge import merge


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

    def __add__(self, other: RowGrads) -> RowGrads:
        if not len(self.rows_U):
            return other
        if not len(other.rows_U):
            return self
        return sum_duplicates(torch.cat([self.rows_U, other.rows_U]), torch.cat([self.values_UD, other.values_UD]))


def sum_duplicates(rows_N: Tensor, values_ND: Tensor) -> RowGrads:
    """Values of equal rows summed; the same input gives the same bits every time."""
    return sum_lookups([LookUpGrad(rows_N, values_ND)])


def sum_lookups(lookups: Sequence[LookUpGrad], dropped: Tensor | None = None) -> RowGrads:
    """The gradient of every row that was looked up, but for the rows `dropped` (ascending); at least one look-up.

    Every gradient is copied once into one tensor, rows are sorted once, and each row's gradients are summed in the
    order of the look-ups: the same look-ups give the same bits.
    """
    if len(lookups) == 1:
        rows_N, sources_N, grads_nD = lookups[0].rows_N, lookups[0].sources_N, lookups[0].grads_nD
    else:
        rows_N = torch.cat([lookup.rows_N for lookup in lookups])
        sources_N = _sources(lookups) if any(lookup.sources_N is not None for lookup in lookups) else None
        grads_nD = torch.cat([lookup.grads_nD for lookup in lookups])
    return RowGrads(*merge(rows_N, grads_nD, sources_N, rows_N[:0] if dropped is None else dropped))


def _sources(lookups: Sequence[LookUpGrad]) -> Tensor:
    """For every row of every look-up, the place of its gradient when those of all look-ups stand in a line."""
    parts, base = [], 0
    for lookup in lookups:
        if lookup.sources_N is None:
            parts.append(torch.arange(base, base + len(lookup.rows_N), device=lookup.rows_N.device))
        else:
            parts.append(lookup.sources_N + base)
        base += len(lookup.grads_nD)
    return torch.cat(parts)
