"""RMSNorm of rows, alone and behind a gated skip connection: on a CPU in one pass over memory each way.

N rows · D width. In torch RMSNorm is a chain of operations, each of which reads and writes all rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fullrank.kernels.bodies import LEAST_ELEMENTS, MAX_WIDTH, worth_compiling


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x²) + eps) * weight` over the last axis, float32 (of bfloat16, too). No second derivatives."""
    if _runs_compiled(weight_D, x):
        out: Any = _RMSNorm.apply(x, weight_D, eps)
        return out
    x = x.float() if x.dtype == torch.bfloat16 else x
    return F.rms_norm(x, x.shape[-1:], eps=eps) * weight_D


def gated_rms_norm(x: Tensor, gate: Tensor, read: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`i = x + sigmoid(gate) ⊙ read`, and `rms_norm(i)`."""
    if x.dtype == gate.dtype == read.dtype and _runs_compiled(weight_D, x, gate, read):
        both: Any = _GatedRMSNorm.apply(x, gate, read, weight_D, eps)
        return both
    i = x + torch.sigmoid(gate) * read
    return i, rms_norm(i, weight_D, eps)


def _runs_compiled(weight_D: Tensor, *rows: Tensor) -> bool:
    first = rows[0]
    if not worth_compiling(first.numel(), LEAST_ELEMENTS) or first.shape[-1] > MAX_WIDTH:
        return False
    known = first.dtype in (torch.float32, torch.bfloat16) and weight_D.dtype == torch.float32 and weight_D.dim() == 1
    return known and all(x.is_cpu and x.is_contiguous() for x in rows)


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        from fullrank.kernels.cpu.rms_norm import norm_forward

        ctx.save_for_backward(x, weight_D)
        ctx.eps = eps
        return norm_forward(x, weight_D, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.rms_norm import norm_backward

        x, weight_D = ctx.saved_tensors
        return *norm_backward(g.contiguous(), x, weight_D, ctx.eps), None


class _GatedRMSNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor, read: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        from fullrank.kernels.cpu.rms_norm import gated_forward

        i, normed = gated_forward(x, gate, read, weight_D, eps)
        ctx.save_for_backward(gate, read, i, weight_D)
        ctx.eps = eps
        return i, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_i: Tensor, g_normed: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.rms_norm import gated_backward

        gate, read, i, weight_D = ctx.saved_tensors
        return *gated_backward(g_i.contiguous(), g_normed.contiguous(), gate, read, i, weight_D, ctx.eps), None
