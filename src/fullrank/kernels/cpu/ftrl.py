"""FTRL-proximal for a CPU: weight, z and n of a row are read and written once, the next ones on their way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.kernels.cpu.compiled import compiled, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 16  # rows between asking for one and writing it
GRAIN = 1024  # rows a thread


def ftrl_on_cpu(
    weight_RD: Tensor,
    z_RD: Tensor,
    n_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    lr: float,
    beta: float,
    l1: float,
    l2: float,
    scale: float,
) -> None:
    """`ftrl`."""
    in_parts(
        _body(weight_RD.shape[1]),
        even_cuts(len(rows_U), GRAIN),
        weight_RD.detach().numpy().reshape(-1),
        z_RD.numpy().reshape(-1),
        n_RD.numpy().reshape(-1),
        rows_U.numpy(),
        grad_UD.numpy().reshape(-1),
        *map(np.float32, (1 / lr, beta, l1, l2, scale)),
    )


@cache
def _body(width: int) -> Any:
    @compiled
    def body(low, high, weight, z, n, rows, grads, inverse_lr, beta, l1, l2, scale):
        for u in range(low, high):
            ahead = rows[min(u + AHEAD, high - 1)] * width
            prefetch(weight, ahead)
            prefetch(z, ahead)
            prefetch(n, ahead)
            # Linear weights are one element wide, so there is no row to treat as a vector.
            for d in range(width):
                place, g = rows[u] * width + d, scale * grads[u * width + d]
                w, old, seen = weight[place], z[place], n[place]
                if seen == 0:
                    old = -w * (beta * inverse_lr + l2) - np.sign(w) * l1
                summed = seen + g * g
                root = np.sqrt(summed)
                old += g - (root - np.sqrt(seen)) * inverse_lr * w
                z[place], n[place] = old, summed
                if abs(old) <= l1:
                    weight[place] = 0
                else:
                    weight[place] = -(old - np.sign(old) * l1) / ((beta + root) * inverse_lr + l2)

    return body
