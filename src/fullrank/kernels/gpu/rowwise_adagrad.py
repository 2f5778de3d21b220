"""Row-wise Adagrad for a GPU: a row and its number are read and written once. Speed unmeasured."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from fullrank.kernels.gpu.compiled import block_of_rows, blocks, compiled


def rowwise_adagrad_on_gpu(
    weight_RD: Tensor, acc_R: Tensor, rows_U: Tensor, grad_UD: Tensor, lr: float, eps: float, scale: float
) -> None:
    """`rowwise_adagrad`."""
    width = weight_RD.shape[1]
    padded, block = block_of_rows(width)
    with torch.cuda.device_of(weight_RD):
        _update[blocks(len(rows_U), block)](
            weight_RD.detach(),
            acc_R,
            rows_U,
            grad_UD,
            len(rows_U),
            lr * scale,
            eps,
            scale * scale / width,
            width,
            padded,
            block,
        )


@compiled
def _update(
    weight,
    acc,
    rows,
    grads,
    num_rows,
    rate,
    eps,
    square_scale,
    width: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
):
    u = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    d = tl.arange(0, padded)
    inside = u < num_rows
    here = inside[:, None] & (d < width)[None, :]
    row = tl.load(rows + u, mask=inside, other=0)
    grad = tl.load(grads + u[:, None] * width + d[None, :], mask=here, other=0.0)
    learned = tl.load(acc + row, mask=inside, other=0.0) + square_scale * tl.sum(grad * grad, 1)
    tl.store(acc + row, learned, mask=inside)
    places = weight + row[:, None] * width + d[None, :]
    value = tl.load(places, mask=here, other=0.0)
    tl.store(places, value - (rate / (tl.sqrt(learned) + eps))[:, None] * grad, mask=here)
