"""`LN(mix(x) + x)` for a CPU: a row's tokens are in cache together, so mixing moves nothing in memory.

T tokens · B rows · D width · `part` = D / T: 8, or a multiple of 16.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.row_norm import normalise_row_backward, normalise_rows
from fullrank.kernels.cpu.tiles import tile_memory
from fullrank.kernels.cpu.vectors import load, load_halves, store

SUM_ROWS = 64  # rows of which gamma's and beta's gradients are summed together: a block of a thread


@compiled
def mixed_norm_forward(low, high, x, token, row, rows, T, D, keep, gamma, beta, hat, rstd, out, eps):
    """`low` and `high` count blocks of `SUM_ROWS` rows; `keep`: what the way back reads is written too."""
    part = D // T
    lines = tile_memory(T * D, np.empty(0, np.float32))
    moments = np.empty(2 * T, np.float32)
    for b in range(low * SUM_ROWS, min(high * SUM_ROWS, rows)):
        for h in range(T):
            own, to = h * token + b * row, h * D
            if part == 8:  # two tokens' parts in a register
                for t in range(0, T, 2):
                    at = t * token + b * row + h * 8
                    store(lines, to + t * 8, load_halves(x, at, at + token) + load(x, own + t * 8))
            else:
                for t in range(T):
                    for c in range(0, part, 16):
                        mixed16 = load(x, t * token + b * row + h * part + c)
                        store(lines, to + t * part + c, mixed16 + load(x, own + t * part + c))
        normalise_rows(lines, T, D, gamma, beta, eps, hat, rstd, out, b, rows, keep, moments)


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
            to = (t * rows + b) * D
            if part == 8:
                for h in range(0, T, 2):
                    at = h * D + t * 8
                    store(dx, to + h * 8, load(lines, t * D + h * 8) + load_halves(lines, at, at + D))
            else:
                for h in range(T):
                    for c in range(0, part, 16):
                        own16, mixed16 = load(lines, t * D + h * part + c), load(lines, h * D + t * part + c)
                        store(dx, to + h * part + c, own16 + mixed16)
