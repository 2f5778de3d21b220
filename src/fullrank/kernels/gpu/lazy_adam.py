"""Lazy Adam for a GPU: weight and both moments of a row are read and written once. Speed unmeasured."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from fullrank.kernels.gpu.compiled import block_of_rows, blocks, compiled


def lazy_adam_on_gpu(
    weight_RD: Tensor,
    mean_RD: Tensor,
    square_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    betas: tuple[float, float],
    rate: float,
    bias: float,
    eps: float,
    scale: float,
    shrunk_U: Tensor | None,
) -> None:
    """`lazy_adam`."""
    width = weight_RD.shape[1]
    padded, block = block_of_rows(width)
    with torch.cuda.device_of(weight_RD):
        _update[blocks(len(rows_U), block)](
            weight_RD.detach(),
            mean_RD,
            square_RD,
            rows_U,
            grad_UD,
            shrunk_U,
            len(rows_U),
            1 - betas[0],
            betas[1],
            1 - betas[1],
            rate,
            1 / bias,
            eps,
            scale,
            width,
            padded,
            block,
        )


@compiled
def _update(
    weight,
    mean,
    square,
    rows,
    grads,
    shrunk,
    num_rows,
    fresh1,
    beta2,
    fresh2,
    rate,
    inverse_bias,
    eps,
    scale,
    width: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    u = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    d = tl.arange(0, padded)
    inside = u < num_rows
    here = inside[:, None] & (d < width)[None, :]
    row = tl.load(rows + u, mask=inside, other=0)
    places = row[:, None] * width + d[None, :]
    w = tl.load(weight + places, mask=here, other=0.0)
    m = tl.load(mean + places, mask=here, other=0.0)
    v = tl.load(square + places, mask=here, other=0.0)
    g = scale * tl.load(grads + u[:, None] * width + d[None, :], mask=here, other=0.0)
    if shrunk is not None:  # decided when it is compiled
        w *= tl.load(shrunk + u, mask=inside, other=1.0)[:, None]
    m += fresh1 * (g - m)
    v = v * beta2 + fresh2 * g * g
    w -= rate * m / (tl.sqrt(v) * inverse_bias + eps)
    tl.store(weight + places, w, mask=here)
    tl.store(mean + places, m, mask=here)
    tl.store(square + places, v, mask=here)
