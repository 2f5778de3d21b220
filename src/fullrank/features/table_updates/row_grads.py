"""The gradient of an arena: which rows, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.features.arena_weight import LookUpGrad


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
    return sum_lookups([LookUpGrad(rows_N, values_ND)])


def sum_lookups(lookups: Sequence[LookUpGrad], dropped: Tensor | None = None) -> RowGrads:
    """The gradient of every row that was looked up, but for the rows `dropped` (ascending); at least one look-up.

    Every gradient is copied once into one tensor, rows are sorted once, and each row's gradients are summed in the
    order of the look-ups: the same look-ups give the same bits.
    """
    if len(lookups) == 1 and lookups[0].sources_N is None:
        rows_N, sources_N, grads_nD = lookups[0].rows_N, None, lookups[0].grads_nD
    else:
        rows_N = torch.cat([lookup.rows_N for lookup in lookups])
        sources_N = _sources(lookups)
        grads_nD = torch.cat([lookup.grads_nD for lookup in lookups])
    sorted_N, order_N = _stable_sort(rows_N)
    if dropped is not None:
        sorted_N, order_N = _without(dropped, sorted_N, order_N)
    if not len(sorted_N):
        return RowGrads(sorted_N, grads_nD[:0])
    first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    torch.ne(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    starts_U = _positions(first_N)
    sources_N = order_N if sources_N is None else sources_N.index_select(0, order_N)
    # A run of equal rows is a bag: one fused gather-and-sum, a tenth of the time of index_add.
    values_UD = F.embedding_bag(sources_N, grads_nD, starts_U, mode="sum")
    return RowGrads(sorted_N.index_select(0, starts_U), values_UD)


def _without(dropped: Tensor, sorted_N: Tensor, order_N: Tensor) -> tuple[Tensor, Tensor]:
    """Both without the places where `sorted_N` is one of `dropped`."""
    begins = torch.searchsorted(sorted_N, dropped)
    ends = torch.searchsorted(sorted_N, dropped, right=True)
    if torch.equal(begins, ends):
        return sorted_N, order_N
    kept = list(zip([0, *ends.tolist()], [*begins.tolist(), len(sorted_N)], strict=True))
    sorted_N, order_N = (torch.cat([whole_N[a:b] for a, b in kept]) for whole_N in (sorted_N, order_N))
    return sorted_N, order_N


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


def _stable_sort(rows_N: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ascending and where each stood; equal rows in the order they came in."""
    if not rows_N.is_cpu:
        return torch.sort(rows_N, stable=True)
    # numpy sorts plain integers with vector instructions: one key of (row, place) takes a fifth of torch's time. Rows
    # times places must stay below 2^63: 2^40 rows of which 2^23 are looked up in a step.
    bits = len(rows_N).bit_length()
    key_N = rows_N.numpy() << bits
    key_N |= np.arange(len(key_N))
    key_N.sort()
    return torch.from_numpy(key_N >> bits), torch.from_numpy(key_N & ((1 << bits) - 1))


def _positions(mask_N: Tensor) -> Tensor:
    """Where the mask is true; on a CPU by numpy, in a fifth of torch's time."""
    return torch.from_numpy(np.flatnonzero(mask_N.numpy())) if mask_N.is_cpu else mask_N.nonzero().squeeze(-1)
