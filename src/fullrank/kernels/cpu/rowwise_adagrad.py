"""Row-wise Adagrad for a CPU: a row and its number are read and written once, the next ones on their way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.kernels.cpu.compiled import add_row, compiled, prefetch, sum_of_squares
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 16  # rows between asking for one and writing it
GRAIN = 1024  # rows a thread


def rowwise_adagrad_on_cpu(
    weight_RD: Tensor, acc_R: Tensor, rows_U: Tensor, grad_UD: Tensor, lr: float, eps: float, scale: float
) -> None:
    """`rowwise_adagrad`."""
    in_parts(
        _body(weight_RD.shape[1]),
        even_cuts(len(rows_U), GRAIN),
        weight_RD.detach().numpy().reshape(-1),
        acc_R.numpy(),
        rows_U.numpy(),
        grad_UD.numpy().reshape(-1),
        np.float32(lr * scale),
        np.float32(eps),
        np.float32(scale * scale / weight_RD.shape[1]),
    )


@cache
def _body(width: int) -> Any:
    @compiled
    def body(low, high, weight, acc, rows, grads, rate, eps, square_scale):
        for u in range(low, high):
            ahead = rows[min(u + AHEAD, high - 1)]
            prefetch(weight, ahead * width)
            prefetch(acc, ahead)
            row = rows[u]
            learned = acc[row] + square_scale * sum_of_squares(grads, u * width, width)
            acc[row] = learned
            scale = -rate / (np.sqrt(learned) + eps)
            add_row(weight, row * width, grads, u * width, scale, width)

    return body
