"""Gradients of equal rows summed. N values · n gradients · U unique rows · D width."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.kernels.bodies import runs_compiled, runs_triton

LEAST = 8192  # rows


def merge(rows_N: Tensor, grads_nD: Tensor, sources_N: Tensor | None, dropped: Tensor) -> tuple[Tensor, Tensor]:
    """(`rows_U`, `values_UD`): each row of `rows_N` once, ascending, and the sum of its gradients.

    Row `rows_N[i]` (int64, >= 0) got `grads_nD[sources_N[i]]` (None: `grads_nD[i]`). Rows in `dropped` (ascending) are
    left out. A row's gradients are added in a fixed order (on a CPU, and in the reference: the order of the rows), so
    that the same input gives the same bits every time.
    """
    if runs_compiled(len(rows_N), LEAST, grads_nD) and len(rows_N) < 1 << 32:
        from fullrank.kernels.cpu.merge import merge_on_cpu

        found = merge_on_cpu(rows_N, grads_nD, sources_N, dropped)
        if found is not None:
            return found
    elif runs_triton(grads_nD):
        from fullrank.kernels.gpu.merge import merge_on_gpu

        return merge_on_gpu(rows_N, grads_nD, sources_N, dropped)
    sorted_N, order_N = _stable_sort(rows_N)
    if len(dropped):
        sorted_N, order_N = _without(dropped, sorted_N, order_N)
    if not len(sorted_N):
        return sorted_N, grads_nD[:0]
    first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    torch.ne(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    starts_U = _positions(first_N)
    sources_N = order_N if sources_N is None else sources_N.index_select(0, order_N)
    # A run of equal rows is a bag: one fused gather-and-sum, a tenth of the time of index_add.
    return sorted_N.index_select(0, starts_U), F.embedding_bag(sources_N, grads_nD, starts_U, mode="sum")


def _without(dropped: Tensor, sorted_N: Tensor, order_N: Tensor) -> tuple[Tensor, Tensor]:
    """Both without the places where `sorted_N` is one of `dropped`."""
    begins = torch.searchsorted(sorted_N, dropped)
    ends = torch.searchsorted(sorted_N, dropped, right=True)
    if torch.equal(begins, ends):
        return sorted_N, order_N
    kept = list(zip([0, *ends.tolist()], [*begins.tolist(), len(sorted_N)], strict=True))
    sorted_N, order_N = (torch.cat([whole_N[a:b] for a, b in kept]) for whole_N in (sorted_N, order_N))
    return sorted_N, order_N


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
