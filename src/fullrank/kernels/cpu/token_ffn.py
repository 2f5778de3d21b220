"""The feed-forward networks of tokens for a CPU with tiles: a token's weights and a block of its rows stay in cache.

What the way back reads of the hidden units (z) is stored in blocks of 32 x 32, in the order in which it is read.
Weights are rounded to bf16 and packed token by token, where they are used: nothing of them is written to memory. T
tokens · B rows (at least 32; a multiple of 32 where anything is kept, and on the way back) · D width · H hidden
(multiples of 32). All arrays are flat.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.gelu import gelu, gelu_slope
from fullrank.kernels.cpu.row_norm import normalise_row_backward, normalise_rows
from fullrank.kernels.cpu.tiles import (
    TILE,
    begin_tiles,
    end_tiles,
    pack_rows,
    pack_rows_transposed,
    pack_weight,
    pack_weight_transposed,
    product,
    tile_memory,
)
from fullrank.kernels.cpu.vectors import load, store, store_pairs, transpose

BACKWARD_ROWS = 256  # of a block whose gradients of weights are summed at once


@compiled
def ffn_forward(
    low, high, s, token, row, rows, D, H, keep, w1, b1, w2, b2, gamma, beta, z, hat, rstd, out, eps
):  # fmt: skip
    """`LN(FFN(s) + s)`; `keep`: what the way back reads is written too."""
    floats, bits, pairs = np.empty(0, np.float32), np.empty(0, np.int16), np.empty(0, np.int32)
    right1, right2 = tile_memory(D * H // 2, pairs), tile_memory(D * H // 2, pairs)
    h = tile_memory(32 * H, bits)
    y, block = tile_memory(32 * D, floats), tile_memory(1024, floats)
    moments = tile_memory(64, floats)
    begin_tiles()
    for t in range(low, high):
        pack_weight(w1, t * D * H, D, H, right1)
        pack_weight(w2, t * D * H, H, D, right2)
        for block_start in range(0, rows, 32):
            start = min(block_start, rows - 32)  # the last rows are computed again where they fill no block
            x = t * token + start * row  # in s
            at = t * rows + start  # the first row in what is written
            for n in range(0, H, 32):
                product(
                    s, x, 2 * row, 32, 16 * row,
                    right1, n // 16 * (D // 32) * TILE, D // 32 * TILE, D // 32, block, 0, 32, False,
                )  # fmt: skip
                place = at * H + n * 32
                for i in range(32):
                    for c in (0, 16):
                        z16 = load(block, i * 32 + c) + load(b1, t * H + n + c)
                        if keep:
                            store(z, place + i * 32 + c, z16)
                        store(h, i * H + n + c, gelu(z16))
            for n in range(0, D, 32):
                product(
                    h, 0, 2 * H, 32, 16 * H,
                    right2, n // 16 * (H // 32) * TILE, H // 32 * TILE, H // 32, y, n, D, False,
                )  # fmt: skip
            for i in range(32):
                for c in range(0, D, 16):
                    v16 = load(y, i * D + c) + load(b2, t * D + c) + load(s, x + i * row + c)
                    store(y, i * D + c, v16)
            normalise_rows(y, 32, D, gamma, beta, eps, hat, rstd, out, at, 1, keep, moments)
    end_tiles()


@compiled
def ffn_backward(
    low, high, g, g_token, g_row, s, token, row, rows, D, H, w1, w2, gamma, z, hat, rstd,
    ds, dw1, db1, dw2, db2, dgamma, dbeta,
):  # fmt: skip
    """The gradients of s, the weights and biases; of gamma and beta a sum a token."""
    floats, bits, pairs = np.empty(0, np.float32), np.empty(0, np.int16), np.empty(0, np.int32)
    M = min(BACKWARD_ROWS, rows)
    right1, right2 = tile_memory(D * H // 2, pairs), tile_memory(D * H // 2, pairs)
    dv, dz = tile_memory(M * D, bits), tile_memory(32 * H, bits)
    right_dv, right_dz = tile_memory(M * D // 2, pairs), tile_memory(M * H // 2, pairs)
    left_s, left_h = tile_memory(M * D // 2, pairs), tile_memory(M * H // 2, pairs)
    block, scratch = tile_memory(1024, floats), tile_memory(TILE, pairs)
    line = tile_memory(D, floats)
    begin_tiles()
    for t in range(low, high):
        pack_weight_transposed(w2, t * D * H, H, D, scratch, right2)
        pack_weight_transposed(w1, t * D * H, D, H, scratch, right1)
        for start in range(0, rows, M):
            num = min(M, rows - start)
            tiles = num // 32
            at = t * rows + start
            for i in range(num):
                from_row = t * g_token + (start + i) * g_row
                normalise_row_backward(
                    g, from_row, D, gamma, hat, rstd, at + i, line, dgamma, dbeta, t * D
                )
                for c in range(0, D, 16):
                    v16 = load(line, c)
                    store(dv, i * D + c, v16)
                    store(db2, t * D + c, load(db2, t * D + c) + v16)
            pack_rows(dv, 0, D, num, D, right_dv)
            pack_rows_transposed(s, t * token + start * row, row, num, D, scratch, left_s)
            for r in range(0, num, 32):
                for n in range(0, H, 32):
                    product(
                        dv, r * D, 2 * D, 32, 16 * D,
                        right2, n // 16 * (D // 32) * TILE, D // 32 * TILE, D // 32, block, 0, 32, False,
                    )  # fmt: skip
                    for c in (0, 16):
                        tile = ((n + c) // 16 * tiles + r // 32) * TILE
                        place = (at + r) * H + n * 32 + c
                        sum16 = load(db1, t * H + n + c)
                        for p in range(0, 32, 2):
                            z0, z1 = load(z, place + p * 32), load(z, place + p * 32 + 32)
                            dz0 = load(block, p * 32 + c) * gelu_slope(z0)
                            dz1 = load(block, p * 32 + 32 + c) * gelu_slope(z1)
                            store(dz, p * H + n + c, dz0)
                            store(dz, p * H + H + n + c, dz1)
                            store_pairs(right_dz, tile + p * 8, dz0, dz1)
                            store_pairs(scratch, p * 8, gelu(z0), gelu(z1))
                            sum16 = sum16 + dz0 + dz1
                        store(db1, t * H + n + c, sum16)
                        transpose(left_h, tile, scratch, 0)
                for n in range(0, D, 32):
                    product(
                        dz, 0, 2 * H, 32, 16 * H,
                        right1, n // 16 * (H // 32) * TILE, H // 32 * TILE, H // 32, block, 0, 32, False,
                    )  # fmt: skip
                    for i in range(32):
                        for c in (0, 16):
                            s16 = load(block, i * 32 + c) + load(dv, (r + i) * D + n + c)
                            store(ds, (at + r + i) * D + n + c, s16)
            for d in range(0, D, 32):
                for n in range(0, H, 32):
                    product(
                        left_s, d // 16 * tiles * TILE, 64, TILE, tiles * TILE,
                        right_dz, n // 16 * tiles * TILE, tiles * TILE, tiles,
                        dw1, (t * D + d) * H + n, H, start > 0,
                    )  # fmt: skip
            for d in range(0, H, 32):
                for n in range(0, D, 32):
                    product(
                        left_h, d // 16 * tiles * TILE, 64, TILE, tiles * TILE,
                        right_dv, n // 16 * tiles * TILE, tiles * TILE, tiles,
                        dw2, (t * H + d) * D + n, D, start > 0,
                    )  # fmt: skip
    end_tiles()
