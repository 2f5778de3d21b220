"""`LN(mix(x) + x)`, the first half of a post-LN RankMixer block, by a compiled body: mixing moves nothing in memory.

T tokens · B rows · D width. There is no reference here: the layers compute the same with torch wherever
`runs_mixed_norm` says no. x and its gradient are float32 or bf16; the norm, sums and gradients of parameters are
float32. The same bits at any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.bodies import worth_compiling
from fullrank.kernels.parts import even_cuts, in_parts
from fullrank.kernels.token_major import LEAST, flat, results, rows_of


def runs_mixed_norm(x_TBD: Tensor) -> bool:
    """Whether the body computes x: on a CPU, float32 (or bf16, where the processor has tiles of it), D / T 8 (of an
    even number of tokens) or a multiple of 16."""
    tokens, _, width = x_TBD.shape
    if not (x_TBD.is_cpu and worth_compiling(x_TBD.numel(), LEAST)):
        return False
    if width % (16 * tokens) and (width != 8 * tokens or tokens % 2):
        return False
    if x_TBD.dtype == torch.bfloat16:
        from fullrank.kernels.cpu.tiles import has_tiles

        return has_tiles()
    return x_TBD.dtype == torch.float32


def mixed_norm(x_TBD: Tensor, gamma_D: Tensor, beta_D: Tensor, eps: float) -> Tensor:
    """`LN(mix(x) + x)`."""
    out: Any = _MixedNorm.apply(x_TBD, gamma_D, beta_D, eps, torch.is_grad_enabled())
    return out


class _MixedNorm(Function):
    @staticmethod
    def forward(ctx: Any, x_TBD: Tensor, gamma_D: Tensor, beta_D: Tensor, eps: float, keep: bool) -> Tensor:
        from fullrank.kernels.cpu.mixed_norm import SUM_ROWS, mixed_norm_forward

        T, B, D = x_TBD.shape
        out_TBD, hat_TBD, rstd_TB = results(x_TBD, keep)
        in_parts(
            mixed_norm_forward,
            even_cuts(-(-B // SUM_ROWS), 1),
            *rows_of(x_TBD),
            B,
            T,
            D,
            keep,
            flat(gamma_D),
            flat(beta_D),
            flat(hat_TBD),
            flat(rstd_TB),
            flat(out_TBD),
            np.float32(eps),
        )
        ctx.save_for_backward(gamma_D, hat_TBD, rstd_TB)
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_TBD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.mixed_norm import SUM_ROWS, mixed_norm_backward

        gamma_D, hat_TBD, rstd_TB = ctx.saved_tensors
        T, B, D = g_TBD.shape
        dx_TBD = torch.empty_like(hat_TBD)
        blocks = -(-B // SUM_ROWS)
        dgamma_nD, dbeta_nD = torch.zeros(blocks, D), torch.zeros(blocks, D)
        in_parts(
            mixed_norm_backward,
            even_cuts(blocks, 1),
            *rows_of(g_TBD),
            B,
            T,
            D,
            *map(flat, (gamma_D, hat_TBD, rstd_TB, dx_TBD, dgamma_nD, dbeta_nD)),
        )
        return dx_TBD, dgamma_nD.sum(0), dbeta_nD.sum(0), None, None
