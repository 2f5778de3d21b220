"""Gather for a GPU: ids are checked where they are read, so that one pass and one wait for the device do.

Speed unmeasured.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from fullrank.kernels.gpu.compiled import block_of_rows, blocks, compiled


def gather_on_gpu(
    weight_RD: Tensor, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor
) -> tuple[Tensor, Tensor] | None:
    """`gather`; None where some id is out of range."""
    width, total = weight_RD.shape[1], ids_nF.numel()
    rows_nF = torch.empty(ids_nF.shape, dtype=torch.int64, device=ids_nF.device)
    x_nFD = weight_RD.new_empty((*ids_nF.shape, width), requires_grad=False)
    outside = torch.zeros(1, dtype=torch.int32, device=ids_nF.device)
    padded, block = block_of_rows(width)
    with torch.cuda.device_of(weight_RD):
        _gather[blocks(total, block)](
            weight_RD.detach(),
            ids_nF,
            base_F,
            num_rows_F,
            rows_nF,
            x_nFD,
            outside,
            total,
            ids_nF.shape[-1],
            width,
            padded,
            block,
        )
    return None if outside.item() else (x_nFD, rows_nF)


@compiled
def _gather(
    weight,
    ids,
    base,
    num_rows,
    rows,
    x,
    outside,
    total,
    columns,
    width: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    # int64 from here on: rows times width pass 2^31 in a table of 8.6 GB.
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    d = tl.arange(0, padded)
    inside = i < total
    column = i % columns
    id = tl.load(ids + i, mask=inside, other=0).to(tl.int64)
    good = (id >= 0) & (id < tl.load(num_rows + column, mask=inside, other=1))
    row = id + tl.load(base + column, mask=inside, other=0)
    tl.store(rows + i, row, mask=inside)
    # Whoever meets an id outside writes the same 1 to the same place: their order is nothing, and no atomics.
    tl.store(outside + tl.zeros_like(i), 1, mask=inside & ~good)
    here = (inside & good)[:, None] & (d < width)[None, :]
    value = tl.load(weight + row[:, None] * width + d[None, :], mask=here)
    tl.store(x + i[:, None] * width + d[None, :], value, mask=here)
