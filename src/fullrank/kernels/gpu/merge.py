"""Merge for a GPU: torch sorts, then one program sums one run of equal rows.

No atomics: a run's gradients are added `block` at a time, lane by lane, and the lanes at the end, in an order that
depends on the run alone. So the bits are the same every time, though not those of a CPU, which adds one by one. Speed
unmeasured; a batch of which a large part is one single row keeps one program busy, and the others wait for it.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from fullrank.kernels.gpu.compiled import block_of_rows, compiled

ELEMENTS = 1024  # of what one program adds at a time; most runs are short. Our choice, unmeasured


def merge_on_gpu(rows_N: Tensor, grads_nD: Tensor, sources_N: Tensor | None, dropped: Tensor) -> tuple[Tensor, Tensor]:
    """`merge`."""
    sorted_N, order_N = torch.sort(rows_N, stable=True)
    first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    torch.ne(sorted_N[1:], sorted_N[:-1], out=first_N[1:])
    if len(dropped):
        near_N = torch.searchsorted(dropped, sorted_N).clamp_(max=len(dropped) - 1)
        first_N &= dropped[near_N] != sorted_N
    starts_U = first_N.nonzero().squeeze(-1)
    rows_U = sorted_N.index_select(0, starts_U)
    width = grads_nD.shape[1]
    values_UD = grads_nD.new_empty((len(rows_U), width))
    padded, block = block_of_rows(width, ELEMENTS)
    with torch.cuda.device_of(grads_nD):
        _sum_runs[(len(rows_U),)](
            starts_U,
            torch.searchsorted(sorted_N, rows_U, right=True),
            order_N if sources_N is None else sources_N.index_select(0, order_N),
            grads_nD,
            values_UD,
            width,
            padded,
            block,
        )
    return rows_U, values_UD


@compiled
def _sum_runs(starts, ends, sources, grads, values, width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr):
    u = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, padded)
    start = tl.load(starts + u)
    end = tl.load(ends + u)
    lanes = tl.zeros((block, padded), dtype=tl.float32)
    for begin in range(start, end, block):
        i = begin + tl.arange(0, block)
        source = tl.load(sources + i, mask=i < end, other=0)
        here = (i < end)[:, None] & (d < width)[None, :]
        lanes += tl.load(grads + source[:, None] * width + d[None, :], mask=here, other=0.0)
    tl.store(values + u * width + d, tl.sum(lanes, 0), mask=d < width)
