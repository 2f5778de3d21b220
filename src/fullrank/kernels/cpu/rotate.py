"""Rotary turns for a CPU: each half of a head is one vector."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from fullrank.kernels.cpu.compiled import Vector, compiled, elements, on_vectors
from fullrank.kernels.parts import even_cuts, in_parts

GRAIN = 1024  # rows a thread


def turn(x: Tensor, cos_Pd: Tensor, sin_Pd: Tensor, place_N: Tensor, num: int) -> None:
    """`turned_heads`, in place."""
    arrays = [elements(part) for part in (x, cos_Pd, sin_Pd)]
    width = x.shape[-1]
    in_parts(_body(cos_Pd.shape[1]), even_cuts(len(place_N), GRAIN), *arrays, place_N.numpy(), width, num)


@cache
def _body(half: int) -> Any:
    @compiled
    def body(low, high, x, cos, sin, place, width, num):
        for row in range(low, high):
            angle = place[row] * half
            for at in range(row * width, row * width + 2 * half * num, 2 * half):
                _turn(x, at, x, at + half, cos, angle, sin, angle, half)

    return body


@on_vectors(arrays=4, writes=(0, 1))
def _turn(low: Vector, high: Vector, cos: Vector, sin: Vector) -> tuple[Vector, ...]:
    return low * cos - high * sin, high * cos + low * sin
