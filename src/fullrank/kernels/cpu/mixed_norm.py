"""`LN(mix(x) + x)` for a CPU: a row's tokens are in cache together, so mixing moves nothing in memory.

T tokens · B rows · D width · `part` = D / T, a multiple of 16.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.row_norm import normalise_row, normalise_row_backward
from fullrank.kernels.cpu.tiles import tile_memory
from fullrank.kernels.cpu.vectors import load, load_bf16, store, store_bf16

SUM_ROWS = 64  # rows of which gamma's and beta's gradients are summed together: a block of a thread


@compiled
def mixed_norm_forward(low, high, x, token, row, rows, T, D, keep, gamma, beta, hat, rstd, out, eps):
    """`low` and `high` count blocks of `SUM_ROWS` rows; `keep`: what the way back reads is written too."""
    part = D // T
    line = tile_memory(D, np.empty(0, np.float32))
    for b in range(low * SUM_ROWS, min(high * SUM_ROWS, rows)):
        for h in range(T):
            for t in range(T):
                for c in range(0, part, 16):
                    mixed16 = load_bf16(x, t * token + b * row + h * part + c)
                    store(line, t * part + c, mixed16 + load_bf16(x, h * token + b * row + t * part + c))
            normalise_row(line, 0, D, gamma, beta, eps, hat, rstd, out, h * rows + b, keep)


@compiled
def mixed_norm_backward(low, high, g, g_token, g_row, rows, T, D, gamma, hat, rstd, dx, dgamma, dbeta):
    """The gradient of x; of gamma and beta a sum every `SUM_ROWS` rows."""
    part = D // T
    lines = tile_memory(T * D, np.empty(0, np.float32))
    line = tile_memory(D, np.empty(0, np.float32))
    for b in range(low * SUM_ROWS, min(high * SUM_ROWS, rows)):
        sums = b // SUM_ROWS * D
        for h in range(T):
            normalise_row_backward(
                g, h * g_token + b * g_row, D, gamma, hat, rstd, h * rows + b, line, dgamma, dbeta, sums
            )
            for c in range(0, D, 16):
                store(lines, h * D + c, load(line, c))
        for t in range(T):
            for h in range(T):
                for c in range(0, part, 16):
                    own16, mixed16 = load(lines, t * D + h * part + c), load(lines, h * D + t * part + c)
                    store_bf16(dx, (t * rows + b) * D + h * part + c, own16 + mixed16)
