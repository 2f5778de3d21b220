"""Both ways through causal attention within streams, for a CPU. `stream_attention.py` says what they are given.

Legend: R streams · S tokens of a stream.

Sixteen queries are one vector: each goes over the keys before it in a lane of its own, so no sum crosses lanes, and
keys and values are read where they lie, a number for all sixteen. Only the gradients of keys and values are sums over
queries: for them weights are turned, sixteen queries by sixteen keys. The way back makes the weights anew from what
their sums were.
"""

from __future__ import annotations

import numpy as np

from fullrank.kernels.cpu.compiled import compiled, inlined
from fullrank.kernels.cpu.vectors import exp, fma, load, number, put, select_above, spread, store, transpose

TILE = 64  # keys whose weights are in the first cache
LEAST = np.float32(-1e30)  # what the largest of no scores is: finite, so that it may be subtracted from itself


@inlined
def _lanes(x, begin, row, num, width, scale, to):
    """`to[c * 16 + lane]` = number c of row `lane`, times `scale`; zeros from lane `num` on."""
    zero16 = spread(np.float32(0.0))
    for c in range(width):
        store(to, c * 16, zero16)
    for lane in range(num):
        for c in range(width):
            to[c * 16 + lane] = number(x, begin + lane * row + c) * scale


@inlined
def _from_lanes(made, num, width, row, scale, to, begin):
    """The other way."""
    for lane in range(num):
        for c in range(width):
            put(to, begin + lane * row + c, made[c * 16 + lane] * scale)


@inlined
def _scores(lanes, x, begin, row, num, width, to):
    """`to[j * 16 + lane]` = the product of lane and row j of x; four rows at a time, which share what they load."""
    zero16 = spread(np.float32(0.0))
    fours = num // 4 * 4
    for j in range(0, fours, 4):
        a16 = b16 = c16 = d16 = zero16
        at = begin + j * row
        for c in range(width):
            lane16 = load(lanes, c * 16)
            a16 = fma(lane16, spread(number(x, at + c)), a16)
            b16 = fma(lane16, spread(number(x, at + row + c)), b16)
            c16 = fma(lane16, spread(number(x, at + 2 * row + c)), c16)
            d16 = fma(lane16, spread(number(x, at + 3 * row + c)), d16)
        store(to, j * 16, a16)
        store(to, j * 16 + 16, b16)
        store(to, j * 16 + 32, c16)
        store(to, j * 16 + 48, d16)
    for j in range(fours, num):
        a16 = zero16
        for c in range(width):
            a16 = fma(load(lanes, c * 16), spread(number(x, begin + j * row + c)), a16)
        store(to, j * 16, a16)


@inlined
def _add_rows(weights, x, begin, row, num, width, shrink16, to):
    """`to[c * 16 + lane]` = itself times `shrink16`, and the sum of rows j of x times `weights[j * 16 + lane]`."""
    fours = width // 4 * 4
    for c in range(0, fours, 4):
        at = c * 16
        a16, b16 = load(to, at) * shrink16, load(to, at + 16) * shrink16
        c16, d16 = load(to, at + 32) * shrink16, load(to, at + 48) * shrink16
        for j in range(num):
            weight16, one = load(weights, j * 16), begin + j * row + c
            a16 = fma(weight16, spread(number(x, one)), a16)
            b16 = fma(weight16, spread(number(x, one + 1)), b16)
            c16 = fma(weight16, spread(number(x, one + 2)), c16)
            d16 = fma(weight16, spread(number(x, one + 3)), d16)
        store(to, at, a16)
        store(to, at + 16, b16)
        store(to, at + 32, c16)
        store(to, at + 48, d16)
    for c in range(fours, width):
        a16 = load(to, c * 16) * shrink16
        for j in range(num):
            a16 = fma(load(weights, j * 16), spread(number(x, begin + j * row + c)), a16)
        store(to, c * 16, a16)


@inlined
def _add_lanes(turned, place, lanes, width, to, begin, step):
    """`to[begin + c * step + key]` += the sum over lanes of `lanes[c * 16 + lane]` times `turned[lane * 16 + key]`."""
    twos = width // 2 * 2
    for c in range(0, twos, 2):
        at, one = begin + c * step, c * 16
        a16, b16 = load(to, at), load(to, at + step)
        for i in range(16):
            turned16 = load(turned, place + i * 16)
            a16 = fma(turned16, spread(number(lanes, one + i)), a16)
            b16 = fma(turned16, spread(number(lanes, one + 16 + i)), b16)
        store(to, at, a16)
        store(to, at + step, b16)
    for c in range(twos, width):
        a16 = load(to, begin + c * step)
        for i in range(16):
            a16 = fma(load(turned, place + i * 16), spread(number(lanes, c * 16 + i)), a16)
        store(to, begin + c * step, a16)


@inlined
def _mask(scores, low, high, first, window, early, late):
    """Minus infinity where query `first + lane` does not see key j, low <= j < high."""
    for j in range(max(low, first + 1), high):
        store(scores, (j - low) * 16, load(scores, (j - low) * 16) + load(early, (j - first) * 16))
    for j in range(low, min(high, first + 16 - window)):
        store(scores, (j - low) * 16, load(scores, (j - low) * 16) + load(late, max(0, j + window - first) * 16))


@compiled
def forward(low, high, q, q_row, k, k_row, v, v_row, offsets, heads, width, window, early, late, out, sums):
    weights, query = np.empty(TILE * 16, np.float32), np.empty(width * 16, np.float32)
    made, moments = np.empty(width * 16, np.float32), np.empty(32, np.float32)
    scale, whole = np.float32(1.0 / np.sqrt(width)), heads * width
    zero16 = spread(np.float32(0.0))
    for r in range(low, high):
        origin, S = offsets[r], offsets[r + 1] - offsets[r]
        for h in range(heads):
            keys, values = origin * k_row + h * width, origin * v_row + h * width
            for first in range(0, S, 16):
                num = min(16, S - first)
                _lanes(q, (origin + first) * q_row + h * width, q_row, num, width, scale, query)
                for c in range(width):
                    store(made, c * 16, zero16)
                top16, sum16 = spread(LEAST), zero16
                for begin in range(max(0, first - window + 1), first + num, TILE):
                    end = min(begin + TILE, first + num)
                    _scores(query, k, keys + begin * k_row, k_row, end - begin, width, weights)
                    _mask(weights, begin, end, first, window, early, late)
                    before16 = top16
                    for j in range(end - begin):
                        score16 = load(weights, j * 16)
                        top16 = select_above(score16, top16, score16, top16)
                    shrink16 = exp(before16 - top16)
                    sum16 = sum16 * shrink16
                    for j in range(end - begin):
                        weight16 = exp(load(weights, j * 16) - top16)
                        sum16 = sum16 + weight16
                        store(weights, j * 16, weight16)
                    _add_rows(weights, v, values + begin * v_row, v_row, end - begin, width, shrink16, made)
                for c in range(width):
                    store(made, c * 16, load(made, c * 16) / sum16)
                at = (origin + first) * heads + h
                _from_lanes(made, num, width, whole, np.float32(1.0), out, at * width)
                store(moments, 0, top16)
                store(moments, 16, sum16)
                for lane in range(num):
                    sums[at + lane * heads] = moments[lane] + np.log(moments[16 + lane])


@compiled
def backward(
    low, high, g, g_row, q, q_row, k, k_row, v, v_row, o, sums, offsets, heads, width, window, early, late, dq, dk, dv
):  # fmt: skip
    most = 0
    for r in range(low, high):
        most = max(most, offsets[r + 1] - offsets[r])
    weights, slopes, turned = np.empty(256, np.float32), np.empty(256, np.float32), np.empty(512, np.float32)
    query, grad = np.empty(width * 16, np.float32), np.empty(width * 16, np.float32)
    made, of_lanes = np.empty(width * 16, np.float32), np.empty(16, np.float32)
    dkeys, dvalues = np.empty(width * (most + 16), np.float32), np.empty(width * (most + 16), np.float32)
    scale, whole = np.float32(1.0 / np.sqrt(width)), heads * width
    zero16, one = spread(np.float32(0.0)), np.float32(1.0)
    for r in range(low, high):
        origin, S = offsets[r], offsets[r + 1] - offsets[r]
        step = (S + 15) // 16 * 16
        for h in range(heads):
            keys, values = origin * k_row + h * width, origin * v_row + h * width
            for i in range(0, step * width, 16):
                store(dkeys, i, zero16)
                store(dvalues, i, zero16)
            for first in range(0, S, 16):
                num, at = min(16, S - first), (origin + first) * heads + h
                _lanes(g, (origin + first) * g_row + h * width, g_row, num, width, one, grad)
                _lanes(o, at * width, whole, num, width, one, made)
                mean16 = zero16
                for c in range(width):
                    mean16 = fma(load(grad, c * 16), load(made, c * 16), mean16)
                    store(made, c * 16, zero16)
                _lanes(q, (origin + first) * q_row + h * width, q_row, num, width, scale, query)
                for lane in range(16):
                    of_lanes[lane] = sums[at + lane * heads] if lane < num else np.float32(np.inf)
                sum16 = load(of_lanes, 0)
                for begin in range(max(0, first - window + 1) // 16 * 16, first + num, 16):
                    end = min(begin + 16, first + num)
                    _scores(query, k, keys + begin * k_row, k_row, end - begin, width, weights)
                    _mask(weights, begin, end, first, window, early, late)
                    _scores(grad, v, values + begin * v_row, v_row, end - begin, width, slopes)
                    for j in range(end - begin):
                        weight16 = exp(load(weights, j * 16) - sum16)
                        store(weights, j * 16, weight16)
                        store(slopes, j * 16, weight16 * (load(slopes, j * 16) - mean16))
                    for j in range(end - begin, 16):
                        store(weights, j * 16, zero16)
                        store(slopes, j * 16, zero16)
                    _add_rows(slopes, k, keys + begin * k_row, k_row, end - begin, width, spread(one), made)
                    transpose(turned, 0, weights, 0)
                    transpose(turned, 256, slopes, 0)
                    _add_lanes(turned, 0, grad, width, dvalues, begin, step)
                    _add_lanes(turned, 256, query, width, dkeys, begin, step)
                _from_lanes(made, num, width, whole, scale, dq, at * width)
            for s in range(S):
                to = (origin + s) * whole + h * width
                for c in range(width):
                    put(dk, to + c, dkeys[c * step + s])
                    put(dv, to + c, dvalues[c * step + s])
