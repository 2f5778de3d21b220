"""`LN(y + b_t + s)` for a CPU, in blocks of rows that stay in cache. T tokens · B rows · D width; all arrays are flat
float32."""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.row_norm import normalise_row_backward, normalise_rows
from fullrank.kernels.cpu.tiles import tile_memory
from fullrank.kernels.cpu.vectors import load, store

ROWS = 16  # summed and normalised together


@compiled
def residual_norm_forward(
    low, high, y, y_token, y_row, s, token, row, B, D, keep, bias, gamma, beta, hat, rstd, out, eps
):  # fmt: skip
    """Tokens `low … high - 1`; `keep`: what the way back reads is written too."""
    floats = np.empty(0, np.float32)
    lines, moments = tile_memory(ROWS * D, floats), tile_memory(2 * ROWS, floats)
    for t in range(low, high):
        for start in range(0, B, ROWS):
            num = min(ROWS, B - start)
            for i in range(num):
                at_y, at_s = t * y_token + (start + i) * y_row, t * token + (start + i) * row
                for c in range(0, D, 16):
                    store(lines, i * D + c, load(y, at_y + c) + load(bias, t * D + c) + load(s, at_s + c))
            normalise_rows(lines, num, D, gamma, beta, eps, hat, rstd, out, t * B + start, 1, keep, moments)


@compiled
def residual_norm_backward(low, high, g, token, row, B, D, gamma, hat, rstd, dv, dbias, dgamma, dbeta):
    """The gradient of the sum, and that of bias; of gamma and beta a sum a token."""
    line = tile_memory(D, np.empty(0, np.float32))
    for t in range(low, high):
        for b in range(B):
            at = t * B + b
            normalise_row_backward(g, t * token + b * row, D, gamma, hat, rstd, at, line, dgamma, dbeta, t * D)
            for c in range(0, D, 16):
                v16 = load(line, c)
                store(dv, at * D + c, v16)
                store(dbias, t * D + c, load(dbias, t * D + c) + v16)
