"""A cross layer's pointwise half for a CPU: every element is read and written once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import LANES, Vector, compiled, elements, on_vectors
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 64  # rows a thread


def cross_on_cpu(x0_BD: Tensor, x_BD: Tensor, product_BD: Tensor, bias_D: Tensor) -> Tensor:
    """`cross`."""
    y_BD = torch.empty_like(product_BD)
    arrays = [elements(x) for x in (x0_BD, x_BD, product_BD, y_BD)]
    in_parts(_forward, even_cuts(len(x_BD), GRAIN), *arrays, bias_D.detach().float().numpy())
    return y_BD


def cross_backward_on_cpu(
    grad_BD: Tensor, x0_BD: Tensor, p_BD: Tensor, grad_x0_BD: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`cross_backward`."""
    add = np.float32(grad_x0_BD is not None)
    grad_p_BD = torch.empty_like(p_BD)
    if grad_x0_BD is None:
        grad_x0_BD = torch.zeros_like(p_BD)
    arrays = [elements(x) for x in (grad_BD, x0_BD, p_BD, grad_p_BD, grad_x0_BD)]
    cuts = even_cuts(len(p_BD), GRAIN)
    sums = in_parts(_backward, cuts, *arrays, p_BD.shape[1], add)
    return grad_p_BD, grad_x0_BD, torch.from_numpy(np.sum(sums, axis=0))


@compiled
def _forward(low, high, x0, x, p, y, bias):
    width = len(bias)
    whole = width // LANES * LANES
    for begin in range(low * width, high * width, width):
        for d in range(0, whole, LANES):
            i = begin + d
            _cross(x0, i, x, i, p, i, y, i, bias, d, LANES)
        for d in range(whole, width):
            i = begin + d
            _cross(x0, i, x, i, p, i, y, i, bias, d, 1)


@compiled
def _backward(low, high, grad, x0, p, grad_p, grad_x0, width, add):
    sums = np.zeros(width, np.float32)
    whole = width // LANES * LANES
    for begin in range(low * width, high * width, width):
        for d in range(0, whole, LANES):
            i = begin + d
            _grads(grad, i, x0, i, p, i, grad_p, i, grad_x0, i, sums, d, add, LANES)
        for d in range(whole, width):
            i = begin + d
            _grads(grad, i, x0, i, p, i, grad_p, i, grad_x0, i, sums, d, add, 1)
    return sums


@on_vectors(arrays=5, writes=(2, 3))
def _cross(x0: Vector, x: Vector, p: Vector, y: Vector, bias: Vector) -> tuple[Vector, ...]:
    p = p + bias
    return p, x + x0 * p


@on_vectors(arrays=6, writes=(3, 4, 5))
def _grads(
    g: Vector, x0: Vector, p: Vector, grad_p: Vector, grad_x0: Vector, sums: Vector, add: Vector
) -> tuple[Vector, ...]:
    grad_p = g * x0
    return grad_p, add * grad_x0 + g * p, sums + grad_p
