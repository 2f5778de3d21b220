"""The second half of a post-LN RankMixer block in bf16, forward and backward, by compiled bodies on tiles.

T tokens · B rows · D width · H hidden width. There is no reference here: the layers compute the same with torch
wherever `runs_on_tiles` says no. Activations and their gradients are bf16; norms, sums and gradients of parameters are
float32, and a parameter is rounded to bf16 where a product reads it. The same bits at any number of threads.

Not for processors without tiles of bf16 (AMX), nor for dropout inside the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fullrank.kernels.bodies import worth_compiling
from fullrank.kernels.parts import even_cuts, in_parts
from fullrank.kernels.token_major import LEAST, flat, results, rows_of


def runs_on_tiles(x_TBD: Tensor, weight_TDH: Tensor) -> bool:
    """Whether these bodies compute x: bf16 on a CPU with tiles, with weights of float32 (or bf16, where no gradient is
    asked for), D and H multiples of 32."""
    if not (x_TBD.is_cpu and x_TBD.dtype == torch.bfloat16 and worth_compiling(x_TBD.numel(), LEAST)):
        return False
    rounded = weight_TDH.dtype == torch.bfloat16 and not (torch.is_grad_enabled() and weight_TDH.requires_grad)
    if not (rounded or weight_TDH.dtype == torch.float32) or x_TBD.shape[2] % 32 or weight_TDH.shape[2] % 32:
        return False
    from fullrank.kernels.cpu.tiles import has_tiles

    return has_tiles()


def token_ffn(
    s_TBD: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    gamma_D: Tensor,
    beta_D: Tensor,
    eps: float,
) -> Tensor:
    """`LN(W2_t · GELU(W1_t · s_t + b1_t) + b2_t + s_t)`; weights `[T, D, H]`, `[T, 1, H]`, `[T, H, D]`, `[T, 1, D]`."""
    rows = s_TBD.shape[1]
    if rows < 32 or (rows % 32 and torch.is_grad_enabled()):  # rows of zeros add zero to every gradient
        s_TBD = F.pad(s_TBD, (0, 0, 0, -rows % 32))
    out: Any = _TokenFFN.apply(s_TBD, *weights, gamma_D, beta_D, eps, torch.is_grad_enabled())
    return out[:, :rows]


class _TokenFFN(Function):
    @staticmethod
    def forward(
        ctx: Any,
        s_TBD: Tensor,
        w1_TDH: Tensor,
        b1_T1H: Tensor,
        w2_THD: Tensor,
        b2_T1D: Tensor,
        gamma_D: Tensor,
        beta_D: Tensor,
        eps: float,
        keep: bool,
    ) -> Tensor:
        from fullrank.kernels.cpu.token_ffn import ffn_forward

        T, B, D = s_TBD.shape
        H = w1_TDH.shape[2]
        out_TBD, hat_TBD, rstd_TB = results(s_TBD, keep)
        z_TBH = torch.empty((T, B, H) if keep else (0,), dtype=torch.bfloat16)
        in_parts(
            ffn_forward,
            even_cuts(T, 1),
            *rows_of(s_TBD),
            B,
            D,
            H,
            keep,
            *map(flat, (w1_TDH, b1_T1H, w2_THD, b2_T1D, gamma_D, beta_D, z_TBH, hat_TBD, rstd_TB, out_TBD)),
            np.float32(eps),
        )
        ctx.save_for_backward(s_TBD, w1_TDH, w2_THD, gamma_D, z_TBH, hat_TBD, rstd_TB)
        return out_TBD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_TBD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.token_ffn import ffn_backward

        s_TBD, w1_TDH, w2_THD, gamma_D, z_TBH, hat_TBD, rstd_TB = ctx.saved_tensors
        T, B, D = g_TBD.shape
        H = w1_TDH.shape[2]
        ds_TBD = torch.empty_like(hat_TBD)
        dw1_TDH, db1_T1H = torch.empty(T, D, H), torch.zeros(T, 1, H)
        dw2_THD, db2_T1D = torch.empty(T, H, D), torch.zeros(T, 1, D)
        dgamma_TD, dbeta_TD = torch.zeros(T, D), torch.zeros(T, D)
        results = (ds_TBD, dw1_TDH, db1_T1H, dw2_THD, db2_T1D, dgamma_TD, dbeta_TD)
        in_parts(
            ffn_backward,
            even_cuts(T, 1),
            *rows_of(g_TBD),
            *rows_of(s_TBD),
            B,
            D,
            H,
            *map(flat, (w1_TDH, w2_THD, gamma_D, z_TBH, hat_TBD, rstd_TB, *results)),
        )
        gradients = (ds_TBD, dw1_TDH, db1_T1H, dw2_THD, db2_T1D, dgamma_TD.sum(0), dbeta_TD.sum(0))
        return *gradients, None, None
