"""LayerNorm of one row, for compiled bodies: float32 inside, bf16 in memory."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.vectors import fma, load, load_bf16, spread, store, store_bf16, total


@compiled
def normalise_row(v, place, width, gamma, beta, eps, hat, rstd, out, to, keep):
    """`out[to] = gamma * hat + beta`, `hat = (v - mean(v)) * rstd`, of `v[place : place + width]`; `keep`: `hat[to]`
    and `rstd[to]` are written too."""
    sum16 = spread(np.float32(0.0))
    for c in range(0, width, 16):
        sum16 = sum16 + load(v, place + c)
    mean16 = spread(total(sum16) / np.float32(width))
    square16 = spread(np.float32(0.0))
    for c in range(0, width, 16):
        away16 = load(v, place + c) - mean16
        square16 = fma(away16, away16, square16)
    scale = np.float32(1.0) / np.sqrt(total(square16) / np.float32(width) + eps)
    scale16 = spread(scale)
    if keep:
        rstd[to] = scale
    for c in range(0, width, 16):
        hat16 = (load(v, place + c) - mean16) * scale16
        if keep:
            store_bf16(hat, to * width + c, hat16)
        store_bf16(out, to * width + c, fma(hat16, load(gamma, c), load(beta, c)))


@compiled
def normalise_row_backward(g, place, width, gamma, hat, rstd, row, dv, dgamma, dbeta, sums):
    """`dv = rstd * (q - mean(q) - hat * mean(q * hat))` with `q = gamma * g`, the gradient of the row, of which
    `g[place : place + width]` (bf16) is the gradient behind; that of gamma and beta is added from `sums` on."""
    sum16 = dot16 = spread(np.float32(0.0))
    for c in range(0, width, 16):
        g16, hat16 = load_bf16(g, place + c), load_bf16(hat, row * width + c)
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
        hat16 = load_bf16(hat, row * width + c)
        store(dv, c, (load(dv, c) - mean16 - hat16 * share16) * scale16)
