"""Rotary turns of the first heads of every row: on a CPU in place, in one pass over memory each way.

N rows of W numbers · P different positions · d half the width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.bodies import MAX_WIDTH, runs_compiled_elements


def turned_heads(x: Tensor, cos_Pd: Tensor, sin_Pd: Tensor, place: Tensor, num: int) -> Tensor:
    """Of every row `x[..., :]` the first `num` vectors [low ; high] of 2 d numbers as `[low ⊙ cos - high ⊙ sin ;
    high ⊙ cos + low ⊙ sin]`, cos and sin those of its `place`, and the rest as it is. x is used up. No second
    derivatives."""
    if cos_Pd.dtype == torch.float32 and cos_Pd.shape[1] <= MAX_WIDTH and runs_compiled_elements(x):
        out: Any = _Turned.apply(x, cos_Pd, sin_Pd, place.flatten().contiguous(), num)
        return out
    half = cos_Pd.shape[1]
    heads, rest = x.tensor_split([2 * half * num], dim=-1)
    low, high = heads.unflatten(-1, (num, 2, half)).unbind(-2)
    cos, sin = (part[place].unsqueeze(-2) for part in (cos_Pd, sin_Pd))
    both = torch.stack([low * cos - high * sin, high * cos + low * sin], dim=-2).to(x.dtype)
    return torch.cat([both.flatten(-3), rest], dim=-1)


class _Turned(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos_Pd: Tensor, sin_Pd: Tensor, place_N: Tensor, num: int) -> Tensor:
        from fullrank.kernels.cpu.rotate import turn

        turn(x, cos_Pd, sin_Pd, place_N, num)
        ctx.mark_dirty(x)
        ctx.save_for_backward(cos_Pd, sin_Pd, place_N)
        ctx.num = num
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.rotate import turn

        cos_Pd, sin_Pd, place_N = ctx.saved_tensors
        g = g.clone(memory_format=torch.contiguous_format)  # others may read it
        turn(g, cos_Pd, -sin_Pd, place_N, ctx.num)
        return g, None, None, None, None
