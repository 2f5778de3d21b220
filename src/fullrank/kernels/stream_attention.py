"""Causal attention within token streams of unequal length, one stream after another in memory.

R streams · N tokens of all streams · h heads · d width of a head. There is no reference here: layers compute the same
with torch wherever `attends_in_place` says no.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fullrank.kernels.bodies import LEAST_ELEMENTS, worth_compiling

MOST = 64


def attends_in_place(*heads_Nhd: Tensor) -> bool:
    """Whether `stream_attention` is to be asked for queries, keys and values: float32 or bfloat16 on a CPU, heads no
    wider than `MOST` (of wide ones torch's matrix products are faster)."""
    first = heads_Nhd[0]
    if not (first.is_cpu and first.dtype in (torch.float32, torch.bfloat16) and first.shape[-1] <= MOST):
        return False
    return worth_compiling(first.numel(), LEAST_ELEMENTS) and all(x.dtype == first.dtype for x in heads_Nhd)


def stream_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, offsets: Tensor, window: int | None) -> Tensor:
    """Every token reads itself and those before it in its stream (`window - 1` of them); `[N, h, d]`. `offsets`
    (R + 1): where streams begin. Float32 inside. No second derivatives."""
    out: Any = _StreamAttention.apply(q_Nhd, k_Nhd, v_Nhd, offsets, window)
    return out


def _whole_rows(x_Nhd: Tensor) -> Tensor:
    """A token's heads side by side."""
    return x_Nhd if x_Nhd.stride()[1:] == (x_Nhd.shape[2], 1) else x_Nhd.contiguous()


class _StreamAttention(Function):
    @staticmethod
    def forward(
        ctx: Any, q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, offsets: Tensor, window: int | None
    ) -> Tensor:
        from fullrank.kernels.cpu.stream_attention import stream_attention_forward

        heads = _whole_rows(q_Nhd), _whole_rows(k_Nhd), _whole_rows(v_Nhd)
        out_Nhd, sums_Nh = stream_attention_forward(*heads, offsets, window)
        ctx.save_for_backward(*heads, out_Nhd, sums_Nh, offsets)
        ctx.window = window
        return out_Nhd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_Nhd: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # torch: any outputs
        from fullrank.kernels.cpu.stream_attention import stream_attention_backward

        q_Nhd, k_Nhd, v_Nhd, out_Nhd, sums_Nh, offsets = ctx.saved_tensors
        heads, of_streams = (q_Nhd, k_Nhd, v_Nhd), (sums_Nh, offsets, ctx.window)
        return *stream_attention_backward(_whole_rows(g_Nhd), heads, out_Nhd, *of_streams), None, None
