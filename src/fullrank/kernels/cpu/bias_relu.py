"""Bias and ReLU for a CPU: every element is read and written once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import LANES, Vector, compiled, elements, on_vectors
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 64  # rows a thread


def bias_relu_on_cpu(product_BD: Tensor, bias_D: Tensor) -> Tensor:
    """`bias_relu_`."""
    cuts = even_cuts(len(product_BD), GRAIN)
    in_parts(_forward, cuts, elements(product_BD), bias_D.detach().float().numpy())
    return product_BD


def bias_relu_backward_on_cpu(grad_BD: Tensor, y_BD: Tensor) -> tuple[Tensor, Tensor]:
    """`bias_relu_backward`."""
    grad_product_BD = torch.empty_like(y_BD)
    arrays = [elements(x) for x in (grad_BD, y_BD, grad_product_BD)]
    sums = in_parts(_backward, even_cuts(len(y_BD), GRAIN), *arrays, y_BD.shape[1])
    return grad_product_BD, torch.from_numpy(np.sum(sums, axis=0))


@compiled
def _forward(low, high, product, bias):
    width = len(bias)
    whole = width // LANES * LANES
    for begin in range(low * width, high * width, width):
        for d in range(0, whole, LANES):
            _relu(product, begin + d, bias, d, LANES)
        for d in range(whole, width):
            _relu(product, begin + d, bias, d, 1)


@compiled
def _backward(low, high, grad, y, grad_product, width):
    sums = np.zeros(width, np.float32)
    whole = width // LANES * LANES
    for begin in range(low * width, high * width, width):
        for d in range(0, whole, LANES):
            i = begin + d
            _grads(grad, i, y, i, grad_product, i, sums, d, LANES)
        for d in range(whole, width):
            i = begin + d
            _grads(grad, i, y, i, grad_product, i, sums, d, 1)
    return sums


@on_vectors(arrays=2, writes=(0,))
def _relu(product: Vector, bias: Vector) -> tuple[Vector, ...]:
    y = product + bias
    return (y.zero_unless_above(y, 0.0),)


@on_vectors(arrays=4, writes=(2, 3))
def _grads(g: Vector, y: Vector, grad_product: Vector, sums: Vector) -> tuple[Vector, ...]:
    g = g.zero_unless_above(y, 0.0)
    return g, sums + g
