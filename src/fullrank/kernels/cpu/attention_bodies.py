"""The passes of target attention over (row, event) pairs, for a CPU. `attention.py` says what they are for.

Legend: B rows · E events · P pairs · W width of an event · A, H widths of the two hidden layers.

All go through the rows of a chunk, and through each row's events a segment at a time: what a pair needs between its
event and its weight lies in the first cache and is made anew in every pass. Of a row's query and the unit's first
weights one matrix is made, so that a pair costs one product with its event: `M_b = base + diag(q_b) product`. Where a
product may write more rows than a segment has (whole tiles are faster), it writes to scratch. Sums over pairs are kept
by chunk, so that the number of threads changes no bit.

`rows`: of every row in the order of requests, its number b, the begin and end of its events, and its first pair.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.in_cache import (
    add_product,
    add_rows,
    affine,
    copy_rows,
    dot,
    gate_backward,
    gate_forward,
    moments,
    multiply,
)

SEGMENT = 64  # events: three arrays of 64 x 80 are 60 KB


@compiled
def _aligned(size):
    """Zeros that begin where a cache line does."""
    raw = np.zeros(size + 16, dtype=np.float32)
    skip = (-(raw.ctypes.data >> 2)) & 15
    return raw[skip : skip + size]


@cache
def first_moments(W: int, A: int) -> Any:
    """`sums [chunks, 3, A]`: a first value of h_1 = M_b e + bias_b, and sums of what it and its square are off."""

    @compiled
    def body(low, high, cuts, rows, inputs, first, sums):
        row, begin, end, _ = rows
        query, events = inputs
        base, product, bias = first
        matrix, e, h = _aligned(W * A), _aligned(SEGMENT * W), _aligned(SEGMENT * A)
        for chunk in range(low, high):
            fresh = True
            for i in range(cuts[chunk], cuts[chunk + 1]):
                b = row[i]
                copy_rows(matrix, 0, base, 0, W, A)
                for m in range(W):
                    add_rows(matrix, m * A, query[b * W + m], product, m * A, 1, A)
                for s in range(begin[i], end[i], SEGMENT):
                    n = min(SEGMENT, end[i] - s)
                    copy_rows(e, 0, events, s * W, n, W)
                    affine(h, 0, (n + 7) & ~7, e, 0, W, 1, matrix, 0, W, A, bias, b * A)
                    if fresh:
                        copy_rows(sums, chunk * 3 * A, h, 0, 1, A)
                        fresh = False
                    moments(sums, chunk * 3 * A, h, 0, n, A)

    return body


@cache
def second_layer(W: int, A: int, H: int, smooth: bool) -> Any:
    """`h_PH` = f_1(M_b e + bias_b) W_2 + b_2, and its `sums [chunks, 3, H]` as of `first_moments`."""

    @compiled
    def body(low, high, cuts, rows, inputs, first, gate1, second, h_PH, sums):
        row, begin, end, pair = rows
        query, events = inputs
        base, product, bias = first
        weight, bias2 = second
        matrix, e, h = _aligned(W * A), _aligned(SEGMENT * W), _aligned(SEGMENT * A)
        h2, open1 = _aligned(SEGMENT * H), _aligned(SEGMENT * A)
        for chunk in range(low, high):
            fresh = True
            for i in range(cuts[chunk], cuts[chunk + 1]):
                b = row[i]
                copy_rows(matrix, 0, base, 0, W, A)
                for m in range(W):
                    add_rows(matrix, m * A, query[b * W + m], product, m * A, 1, A)
                for s in range(begin[i], end[i], SEGMENT):
                    n = min(SEGMENT, end[i] - s)
                    tiles = (n + 7) & ~7
                    copy_rows(e, 0, events, s * W, n, W)
                    affine(h, 0, tiles, e, 0, W, 1, matrix, 0, W, A, bias, b * A)
                    gate_forward(h, 0, open1, h, 0, tiles, gate1, smooth, A)
                    affine(h2, 0, tiles, h, 0, A, 1, weight, 0, A, H, bias2, 0)
                    place = (pair[i] + s - begin[i]) * H
                    copy_rows(h_PH, place, h2, 0, n, H)
                    if fresh:
                        copy_rows(sums, chunk * 3 * H, h2, 0, 1, H)
                        fresh = False
                    moments(sums, chunk * 3 * H, h2, 0, n, H)

    return body


@cache
def pool(W: int, H: int, smooth: bool) -> Any:
    """`weight_P` = f_2(h) w_3 + b_3 and `out_BW` = the sum of weight times event over a row's pairs."""

    @compiled
    def body(low, high, cuts, rows, events, h_PH, gate2, third, weight_P, out):
        row, begin, end, pair = rows
        vector, bias = third
        a, open2, w = _aligned(SEGMENT * H), _aligned(SEGMENT * H), _aligned(SEGMENT)
        for i in range(cuts[low], cuts[high]):
            for s in range(begin[i], end[i], SEGMENT):
                n = min(SEGMENT, end[i] - s)
                place = pair[i] + s - begin[i]
                gate_forward(a, 0, open2, h_PH, place * H, n, gate2, smooth, H)
                affine(w, 0, (n + 7) & ~7, a, 0, H, 1, vector, 0, H, 1, bias, 0)
                for x in range(n):
                    weight_P[place + x] = w[x]
                multiply(out, row[i] * W, 1, w, 0, 0, 1, events, s * W, n, W)

    return body


@cache
def second_sums(W: int, H: int) -> Any:
    """`sums [chunks, 4, H]` of `gate_backward` at the second layer, which it needs before it can give gradients."""

    @compiled
    def body(low, high, cuts, rows, events, grad, h_PH, gate2, third, sums):
        row, begin, end, pair = rows
        vector, _ = third
        a, open2, d = _aligned(SEGMENT * H), _aligned(SEGMENT * H), _aligned(SEGMENT * H)
        d_weight, zeros = _aligned(SEGMENT), _aligned(H)
        for chunk in range(low, high):
            for i in range(cuts[chunk], cuts[chunk + 1]):
                for s in range(begin[i], end[i], SEGMENT):
                    n = min(SEGMENT, end[i] - s)
                    affine(d_weight, 0, n, events, s * W, W, 1, grad, row[i] * W, W, 1, zeros, 0)
                    affine(d, 0, (n + 7) & ~7, d_weight, 0, 1, 1, vector, 0, 1, H, zeros, 0)
                    place = (pair[i] + s - begin[i]) * H
                    gate_forward(a, 0, open2, h_PH, place, n, gate2, True, H)
                    gate_backward(d, open2, h_PH, place, n, gate2, sums, chunk * 4 * H, True, H)

    return body


@cache
def backward(W: int, A: int, H: int, smooth: bool) -> Any:
    """All gradients, less what reaches the first layer by the mean and variance of h_1 (`first_correction`)."""

    @compiled
    def body(low, high, cuts, rows, inputs, first, turned, gate1, second, gate2, third, saved, grads, sums):
        row, begin, end, pair = rows
        query, events = inputs
        base, product, bias = first
        base_turned, product_turned = turned
        weight_HA, vector = second, third
        h_PH, weight_P, grad = saved
        d_query, d_events, d_bias, d_base, d_product = grads
        sums1, sums2, d_weight2, d_vector, d_bias3 = sums
        matrix, matrix_turned, d_matrix = _aligned(W * A), _aligned(A * W), _aligned(W * A)
        e, d_e = _aligned(SEGMENT * W), _aligned(SEGMENT * W)
        h, a, d1 = _aligned(SEGMENT * A), _aligned(SEGMENT * A), _aligned(SEGMENT * A)
        a2, d2, d_weight = _aligned(SEGMENT * H), _aligned(SEGMENT * H), _aligned(SEGMENT)
        open1, open2 = _aligned(SEGMENT * A), _aligned(SEGMENT * H)
        zeros, of_row = _aligned(max(A, H, W)), _aligned(4 * A)
        for chunk in range(low, high):
            for i in range(cuts[chunk], cuts[chunk + 1]):
                b = row[i]
                copy_rows(matrix, 0, base, 0, W, A)
                for m in range(W):
                    add_rows(matrix, m * A, query[b * W + m], product, m * A, 1, A)
                for x in range(A):
                    add_product(matrix_turned, x * W, base_turned, x * W, query, b * W, product_turned, x * W, W)
                d_matrix[:] = 0
                of_row[:] = 0
                for s in range(begin[i], end[i], SEGMENT):
                    n = min(SEGMENT, end[i] - s)
                    tiles = (n + 7) & ~7
                    place = pair[i] + s - begin[i]
                    copy_rows(e, 0, events, s * W, n, W)
                    affine(h, 0, tiles, e, 0, W, 1, matrix, 0, W, A, bias, b * A)
                    gate_forward(a, 0, open1, h, 0, tiles, gate1, smooth, A)
                    # The last layer: w = f_2(h_2) w_3 + b_3, out += w e.
                    affine(d_weight, 0, tiles, e, 0, W, 1, grad, b * W, W, 1, zeros, 0)
                    gate_forward(a2, 0, open2, h_PH, place * H, n, gate2, smooth, H)
                    multiply(d_vector, chunk * H, 1, d_weight, 0, 0, 1, a2, 0, n, H)
                    for x in range(n):
                        d_bias3[chunk] += d_weight[x]
                    affine(d_e, 0, n, weight_P, place, 1, 1, grad, b * W, 1, W, zeros, 0)
                    # The second.
                    affine(d2, 0, tiles, d_weight, 0, 1, 1, vector, 0, 1, H, zeros, 0)
                    gate_backward(d2, open2, h_PH, place * H, n, gate2, sums2, chunk * 4 * H, smooth, H)
                    multiply(d_weight2, chunk * A * H, A, a, 0, 1, A, d2, 0, n, H)
                    affine(d1, 0, tiles, d2, 0, H, 1, weight_HA, 0, H, A, zeros, 0)
                    # The first.
                    gate_backward(d1, open1, h, 0, n, gate1, of_row, 0, smooth, A)
                    multiply(d_matrix, 0, W, e, 0, 1, W, d1, 0, n, A)
                    multiply(d_e, 0, tiles, d1, 0, A, 1, matrix_turned, 0, A, W)
                    add_rows(d_events, s * W, np.float32(1), d_e, 0, n, W)
                copy_rows(d_bias, b * A, of_row, 3 * A, 1, A)
                add_rows(sums1, chunk * 4 * A, np.float32(1), of_row, 0, 4, A)
                add_rows(d_base, chunk * W * A, np.float32(1), d_matrix, 0, W, A)
                for m in range(W):
                    add_rows(d_product, (chunk * W + m) * A, query[b * W + m], d_matrix, m * A, 1, A)
                    d_query[b * W + m] = dot(d_matrix, m * A, product, m * A, A)

    return body


@cache
def first_correction(W: int, A: int) -> Any:
    """What reaches the first layer by the mean and variance of h_1: `p + r h_1` (rows 3 and 4 of the gate) more at
    every pair. Being affine in the event it needs no pass over hidden units, only each row's sum of e and of e e^T."""

    @compiled
    def body(low, high, cuts, rows, inputs, first, turned, gate1, grads):
        row, begin, end, _ = rows
        query, events = inputs
        base, product, bias = first
        base_turned, product_turned = turned
        d_query, d_events, d_bias, d_base, d_product = grads
        scaled, matrix, matrix_turned, d_matrix = _aligned(W * A), _aligned(A), _aligned(A * W), _aligned(W * A)
        gram, total, of_event, shift = _aligned(W * W), _aligned(W), _aligned(W * W), _aligned(W)
        e, d_e, ones = _aligned(SEGMENT * W), _aligned(SEGMENT * W), _aligned(SEGMENT)
        constant, zeros = _aligned(A), _aligned(max(A, W))
        ones[:] = 1
        for chunk in range(low, high):
            for i in range(cuts[chunk], cuts[chunk + 1]):
                b = row[i]
                if begin[i] == end[i]:
                    continue
                for m in range(W):
                    copy_rows(matrix, 0, base, m * A, 1, A)
                    add_rows(matrix, 0, query[b * W + m], product, m * A, 1, A)
                    add_product(scaled, m * A, zeros, 0, matrix, 0, gate1, 4 * A, A)
                for x in range(A):
                    add_product(matrix_turned, x * W, base_turned, x * W, query, b * W, product_turned, x * W, W)
                add_product(constant, 0, gate1, 3 * A, bias, b * A, gate1, 4 * A, A)
                # d_h = constant + scaled^T e, so d_e = M (constant + scaled^T e).
                affine(of_event, 0, W, scaled, 0, A, 1, matrix_turned, 0, A, W, zeros, 0)
                affine(shift, 0, 1, constant, 0, 0, 1, matrix_turned, 0, A, W, zeros, 0)
                gram[:] = 0
                total[:] = 0
                for s in range(begin[i], end[i], SEGMENT):
                    n = min(SEGMENT, end[i] - s)
                    copy_rows(e, 0, events, s * W, n, W)
                    multiply(gram, 0, W, e, 0, 1, W, e, 0, n, W)
                    multiply(total, 0, 1, ones, 0, 0, 1, e, 0, n, W)
                    affine(d_e, 0, (n + 7) & ~7, e, 0, W, 1, of_event, 0, W, W, shift, 0)
                    add_rows(d_events, s * W, np.float32(1), d_e, 0, n, W)
                affine(d_matrix, 0, W, total, 0, 1, 1, constant, 0, 1, A, zeros, 0)
                multiply(d_matrix, 0, W, gram, 0, W, 1, scaled, 0, W, A)
                add_rows(d_bias, b * A, np.float32(end[i] - begin[i]), constant, 0, 1, A)
                multiply(d_bias, b * A, 1, total, 0, 0, 1, scaled, 0, W, A)
                add_rows(d_base, chunk * W * A, np.float32(1), d_matrix, 0, W, A)
                for m in range(W):
                    add_rows(d_product, (chunk * W + m) * A, query[b * W + m], d_matrix, m * A, 1, A)
                    d_query[b * W + m] += dot(d_matrix, m * A, product, m * A, A)

    return body
