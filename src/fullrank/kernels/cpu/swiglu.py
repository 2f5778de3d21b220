"""`SiLU(a) ⊙ b` for a CPU: each half of a row is one vector."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.compiled import Vector, compiled, elements, on_vectors
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 1024  # rows a thread


def swiglu_forward(z: Tensor) -> Tensor:
    """`swiglu`."""
    half = z.shape[-1] // 2
    out = z.new_empty(*z.shape[:-1], half)
    in_parts(_forward(half), even_cuts(out.numel() // half, GRAIN), elements(z), elements(out))
    return out


def swiglu_backward(g: Tensor, z: Tensor) -> Tensor:
    """The gradient of z."""
    half, dz = g.shape[-1], torch.empty_like(z)
    arrays = elements(g), elements(z), elements(dz)
    in_parts(_backward(half), even_cuts(g.numel() // half, GRAIN), *arrays, np.float32(1))
    return dz


@cache
def _forward(half: int) -> Any:
    @compiled
    def body(low, high, z, out):
        for row in range(low, high):
            at = 2 * half * row
            _swiglu(z, at, z, at + half, out, half * row, half)

    return body


@cache
def _backward(half: int) -> Any:
    @compiled
    def body(low, high, g, z, dz, one):
        for row in range(low, high):
            at = 2 * half * row
            _swiglu_back(g, half * row, z, at, z, at + half, dz, at, dz, at + half, one, half)

    return body


@on_vectors(arrays=3, writes=(2,))
def _swiglu(a: Vector, b: Vector, out: Vector) -> tuple[Vector, ...]:
    return (a * b * a.sigmoid(),)


@on_vectors(arrays=5, writes=(3, 4))
def _swiglu_back(g: Vector, a: Vector, b: Vector, da: Vector, db: Vector, one: Vector) -> tuple[Vector, ...]:
    opened = a.sigmoid()
    return g * b * opened * (one + a * (one - opened)), g * a * opened
