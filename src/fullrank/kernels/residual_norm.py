"""`LN(y + b_t + s)` of token-major rows, in one pass over memory: the end of a post-LN block.

T tokens · B rows · D width, float32. There is no reference here: layers compute the same with torch wherever
`runs_between_products` says no.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.parts import even_cuts, in_parts
from fullrank.kernels.token_major import flat, results, rows_of


def residual_norm(
    y_TBD: Tensor, bias_T1D: Tensor, s_TBD: Tensor, gamma_D: Tensor, beta_D: Tensor, eps: float
) -> Tensor:
    """`LN(y + bias + s)` over the last axis."""
    out: Any = _ResidualNorm.apply(y_TBD, bias_T1D, s_TBD, gamma_D, beta_D, eps, torch.is_grad_enabled())
    return out


class _ResidualNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        y_TBD: Tensor,
        bias_T1D: Tensor,
        s_TBD: Tensor,
        gamma_D: Tensor,
        beta_D: Tensor,
        eps: float,
        keep: bool,
    ) -> Tensor:
        from fullrank.kernels.cpu.residual_norm import residual_norm_forward

        T, B, D = y_TBD.shape
        out_TBD, hat_TBD, rstd_TB = results(y_TBD, keep)
        in_parts(
            residual_norm_forward,
            even_cuts(T, 1),
            *rows_of(y_TBD),
            *rows_of(s_TBD),
            B,
            D,
            keep,
            *map(flat, (bias_T1D, gamma_D, beta_D, hat_TBD, rstd_TB, out_TBD)),
            np.float32(eps),
        )
        ctx.save_for_backward(gamma_D, hat_TBD, rstd_TB)
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_TBD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.residual_norm import residual_norm_backward

        gamma_D, hat_TBD, rstd_TB = ctx.saved_tensors
        T, B, D = g_TBD.shape
        dv_TBD, dbias_T1D = torch.empty_like(hat_TBD), torch.zeros(T, 1, D)
        dgamma_TD, dbeta_TD = torch.zeros(T, D), torch.zeros(T, D)
        in_parts(
            residual_norm_backward,
            even_cuts(T, 1),
            *rows_of(g_TBD),
            B,
            D,
            *map(flat, (gamma_D, hat_TBD, rstd_TB, dv_TBD, dbias_T1D, dgamma_TD, dbeta_TD)),
        )
        return dv_TBD, dbias_T1D, dv_TBD, dgamma_TD.sum(0), dbeta_TD.sum(0), None, None
