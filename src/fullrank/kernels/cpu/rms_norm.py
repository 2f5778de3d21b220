"""RMSNorm for a CPU, alone and behind a gated skip connection: a row of width D is one vector."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import Vector, compiled, elements, on_vectors
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 1024  # rows a thread


def norm_forward(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`rms_norm`, float32."""
    out = torch.empty_like(x, dtype=torch.float32)
    _run(_forward, x, (x, weight_D, out), eps)
    return out


def norm_backward(g: Tensor, x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight."""
    dx = torch.empty_like(x)
    return dx, _run(_backward, x, (g, x, weight_D, dx), eps)


def gated_forward(x: Tensor, gate: Tensor, read: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`gated_rms_norm`."""
    i, normed = torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)
    _run(_gated_forward, x, (x, gate, read, weight_D, i, normed), eps)
    return i, normed


def gated_backward(
    g_i: Tensor, g_normed: Tensor, gate: Tensor, read: Tensor, i: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, gate, read and the weight."""
    dx, dgate, dread = (torch.empty_like(i) for _ in range(3))
    of_weight_D = _run(_gated_backward, i, (g_i, g_normed, gate, read, i, weight_D, dx, dgate, dread), eps)
    return dx, dgate, dread, of_weight_D


def _run(body: Any, rows: Tensor, tensors: tuple[Tensor, ...], eps: float) -> Tensor:
    """`body` of the width, for all rows, a range of parts at a time; the sum of what parts added up, `[D]`.

    Parts write their sums into memory that is given: an array that a cached body of one width returns is lost where
    one of another width was loaded before it (Numba: both have one name).
    """
    width = rows.shape[-1]
    cuts = even_cuts(rows.numel() // width, GRAIN)
    sums_PD = np.zeros((len(cuts) - 1, width), np.float32)
    numbers = (np.float32(1 / width), np.float32(eps), np.float32(1))
    in_parts(body(width), range(len(cuts)), *map(elements, tensors), sums_PD.reshape(-1), np.array(cuts), *numbers)
    return torch.from_numpy(sums_PD.sum(0))


@cache
def _forward(width: int) -> Any:
    @compiled
    def body(low, high, x, weight, out, sums, cuts, share, eps, one):
        for i in range(cuts[low] * width, cuts[high] * width, width):
            _norm(x, i, weight, 0, out, i, share, eps, one, width)

    return body


@cache
def _backward(width: int) -> Any:
    @compiled
    def body(low, high, g, x, weight, dx, sums, cuts, share, eps, one):
        for i in range(cuts[low] * width, cuts[high] * width, width):
            _norm_back(g, i, x, i, weight, 0, dx, i, sums, low * width, share, eps, one, width)

    return body


@cache
def _gated_forward(width: int) -> Any:
    @compiled
    def body(low, high, x, gate, read, weight, out, normed, sums, cuts, share, eps, one):
        for i in range(cuts[low] * width, cuts[high] * width, width):
            _gated(x, i, gate, i, read, i, weight, 0, out, i, normed, i, share, eps, one, width)

    return body


@cache
def _gated_backward(width: int) -> Any:
    @compiled
    def body(low, high, g, g_normed, gate, read, x, weight, dx, dgate, dread, sums, cuts, share, eps, one):
        for i in range(cuts[low] * width, cuts[high] * width, width):
            _gated_back(
                g, i, g_normed, i, gate, i, read, i, x, i, weight, 0, dx, i, dgate, i, dread, i, sums, low * width,
                share, eps, one, width,
            )  # fmt: skip

    return body


@on_vectors(arrays=3, writes=(2,))
def _norm(x: Vector, weight: Vector, out: Vector, share: Vector, eps: Vector, one: Vector) -> tuple[Vector, ...]:
    return (x * _scale(x, share, eps, one) * weight,)


@on_vectors(arrays=5, writes=(3, 4))
def _norm_back(
    g: Vector, x: Vector, weight: Vector, dx: Vector, sums: Vector, share: Vector, eps: Vector, one: Vector
) -> tuple[Vector, ...]:
    own, of_weight = _slope(g, x, weight, share, eps, one)
    return own, sums + of_weight


@on_vectors(arrays=6, writes=(4, 5))
def _gated(
    x: Vector, gate: Vector, read: Vector, weight: Vector, out: Vector, normed: Vector,
    share: Vector, eps: Vector, one: Vector,
) -> tuple[Vector, ...]:  # fmt: skip
    x = x + gate.sigmoid() * read
    return x, x * _scale(x, share, eps, one) * weight


@on_vectors(arrays=10, writes=(6, 7, 8, 9))
def _gated_back(
    g: Vector, g_normed: Vector, gate: Vector, read: Vector, x: Vector, weight: Vector,
    dx: Vector, dgate: Vector, dread: Vector, sums: Vector, share: Vector, eps: Vector, one: Vector,
) -> tuple[Vector, ...]:  # fmt: skip
    own, of_weight = _slope(g_normed, x, weight, share, eps, one)
    own, opened = own + g, gate.sigmoid()
    dread = own * opened
    return own, dread * read * (one - opened), dread, sums + of_weight


def _scale(x: Vector, share: Vector, eps: Vector, one: Vector) -> Vector:
    """1 / sqrt(mean(x²) + eps)."""
    return one / ((x * x).sum() * share + eps).sqrt()


def _slope(
    g: Vector, x: Vector, weight: Vector, share: Vector, eps: Vector, one: Vector
) -> tuple[Vector, Vector]:
    """Of the gradient g behind the norm that of x, and the row's part of the weight's."""
    scale = _scale(x, share, eps, one)
    hat, q = x * scale, g * weight
    return (q - hat * ((q * hat).sum() * share)) * scale, g * hat
