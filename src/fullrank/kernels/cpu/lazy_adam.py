"""Lazy Adam for a CPU: weight and both moments of a row are read and written once, the next ones on their way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.kernels.cpu.compiled import Vector, compiled, on_vectors, prefetch
from fullrank.kernels.parts import even_cuts, in_parts

AHEAD = 16  # rows between asking for one and writing it
GRAIN = 1024  # rows a thread


def lazy_adam_on_cpu(
    weight_RD: Tensor,
    mean_RD: Tensor,
    square_RD: Tensor,
    rows_U: Tensor,
    grad_UD: Tensor,
    betas: tuple[float, float],
    rate: float,
    bias: float,
    eps: float,
    scale: float,
    shrunk_U: Tensor | None,
) -> None:
    """`lazy_adam`."""
    whole = np.ones(1, np.float32)
    in_parts(
        _body(weight_RD.shape[1]),
        even_cuts(len(rows_U), GRAIN),
        weight_RD.detach().numpy().reshape(-1),
        mean_RD.numpy().reshape(-1),
        square_RD.numpy().reshape(-1),
        rows_U.numpy(),
        grad_UD.numpy().reshape(-1),
        whole if shrunk_U is None else shrunk_U.numpy(),
        tuple(map(np.float32, (1 - betas[0], betas[1], 1 - betas[1], rate, 1 / bias, eps, scale))),
    )


@cache
def _body(width: int) -> Any:
    @compiled
    def body(low, high, weight, mean, square, rows, grads, shrunk, constants):
        fresh1, beta2, fresh2, rate, inverse, eps, scale = constants
        for u in range(low, high):
            ahead = rows[min(u + AHEAD, high - 1)] * width
            prefetch(weight, ahead)
            prefetch(mean, ahead)
            prefetch(square, ahead)
            factor = shrunk[u] if len(shrunk) > 1 else shrunk[0]
            row = rows[u] * width
            at = u * width
            _adam(
                weight,
                row,
                mean,
                row,
                square,
                row,
                grads,
                at,
                fresh1,
                beta2,
                fresh2,
                rate,
                inverse,
                eps,
                scale,
                factor,
                width,
            )

    return body


@on_vectors(arrays=4, writes=(0, 1, 2))
def _adam(
    w: Vector,
    m: Vector,
    v: Vector,
    g: Vector,
    fresh1: Vector,
    beta2: Vector,
    fresh2: Vector,
    rate: Vector,
    inverse: Vector,
    eps: Vector,
    scale: Vector,
    factor: Vector,
) -> tuple[Vector, ...]:
    g = scale * g
    m = m + fresh1 * (g - m)
    v = v * beta2 + fresh2 * g * g
    return w * factor - rate * m / (v.sqrt() * inverse + eps), m, v
