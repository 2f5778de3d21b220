"""`GELU(z + b_t)` of token-major rows, in one pass over memory.

T tokens · B rows · H width, float32. GELU is the exact (erf) form, as near as torch's (2.4e-7 |z|). There is no
reference here: layers compute the same with torch wherever `runs_between_products` says no.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.parts import even_cuts, in_parts
from fullrank.kernels.token_major import flat


def bias_gelu(z_TBH: Tensor, bias_T1H: Tensor) -> Tensor:
    """`GELU(z + bias)`. z is used up: its memory holds what the way back reads, or, without gradients, the result."""
    out: Any = _BiasGelu.apply(z_TBH, bias_T1H, torch.is_grad_enabled())
    return out


class _BiasGelu(Function):
    @staticmethod
    def forward(ctx: Any, z_TBH: Tensor, bias_T1H: Tensor, keep: bool) -> Tensor:
        from fullrank.kernels.cpu.bias_gelu import bias_gelu_forward

        T, B, H = z_TBH.shape
        h_TBH = torch.empty_like(z_TBH) if keep else z_TBH
        arrays = flat(z_TBH), flat(bias_T1H), flat(h_TBH)
        in_parts(bias_gelu_forward, even_cuts(T * B, 64), *arrays, B, H, keep)
        ctx.mark_dirty(*((z_TBH,) if h_TBH is z_TBH else ()))
        ctx.save_for_backward(z_TBH)
        return h_TBH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_TBH: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.bias_gelu import bias_gelu_backward

        (z_TBH,) = ctx.saved_tensors
        T, B, H = z_TBH.shape
        dz_TBH, dbias_T1H = torch.empty_like(z_TBH), torch.zeros(T, 1, H)
        arrays = flat(g_TBH), flat(z_TBH), flat(dz_TBH), flat(dbias_T1H)
        in_parts(bias_gelu_backward, even_cuts(T, 1), *arrays, B, H)
        return dz_TBH, dbias_T1H, None
