"""LayerNorm of rows, for compiled bodies: float32 inside, bf16 in memory."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import inlined
from fullrank.kernels.cpu.vectors import fma, load, spread, store, total


@inlined
def normalise_rows(v, num, width, gamma, beta, eps, hat, rstd, out, first, step, keep, moments):
    """Of rows `v[i * width :]`, i < num: `out[n] = gamma * hat + beta`, `hat = (v - mean(v)) * rstd`, row n = first +
    i * step of what is written; `keep`: `hat[n]` and `rstd[n]` are written too. `moments`: memory for 2 num numbers.

    Each sum goes over all rows before the next begins: a row's own sums wait for one another, those of other rows do
    not (a third of the time).
    """
    share = np.float32(1.0) / np.float32(width)
    for i in range(num):
        sum16 = spread(np.float32(0.0))
        for c in range(0, width, 16):
            sum16 = sum16 + load(v, i * width + c)
        moments[i] = total(sum16) * share
    for i in range(num):
        mean16 = spread(moments[i])
        square16 = spread(np.float32(0.0))
        for c in range(0, width, 16):
            away16 = load(v, i * width + c) - mean16
            square16 = fma(away16, away16, square16)
        moments[num + i] = np.float32(1.0) / np.sqrt(total(square16) * share + eps)
    for i in range(num):
        mean16, scale16 = spread(moments[i]), spread(moments[num + i])
        to = first + i * step
        if keep:
            rstd[to] = moments[num + i]
        for c in range(0, width, 16):
            hat16 = (load(v, i * width + c) - mean16) * scale16
            if keep:
                store(hat, to * width + c, hat16)
            store(out, to * width + c, fma(hat16, load(gamma, c), load(beta, c)))


@inlined
def normalise_row_backward(g, place, width, gamma, hat, rstd, row, dv, dgamma, dbeta, sums):
    """`dv = rstd * (q - mean(q) - hat * mean(q * hat))` with `q = gamma * g`, the gradient of the row, of which
    `g[place : place + width]` (bf16) is the gradient behind; that of gamma and beta is added from `sums` on."""
    sum16 = dot16 = spread(np.float32(0.0))
    for c in range(0, width, 16):
        g16, hat16 = load(g, place + c), load(hat, row * width + c)
        store(dbeta, sums + c, load(dbeta, sums + c) + g16)
        store(dgamma, sums + c, fma(g16, hat16, load(dgamma, sums + c)))
        q16 = g16 * load(gamma, c)
        sum16 = sum16 + q16
        dot16 = fma(q16, hat16, dot16)
        store(dv, c, q16)
    mean16 = spread(total(sum16) / np.float32(width))
    share16 = spread(total(dot16) / np.float32(width))
    scale16 = spread(rstd[row])
    for c in range(0, width, 16):
        hat16 = load(hat, row * width + c)
        store(dv, c, (load(dv, c) - mean16 - hat16 * share16) * scale16)
