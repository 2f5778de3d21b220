"""Causal attention within streams of unequal length, for a CPU: nothing is padded, gathered or masked in memory.

Legend: N tokens of all streams · h heads · d width of a head.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from fullrank.kernels.cpu.stream_attention_bodies import backward, forward
from fullrank.kernels.parts import in_parts

EVER = 1 << 40  # a window that nothing falls out of


def stream_attention_forward(
    q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, offsets: Tensor, window: int | None
) -> tuple[Tensor, Tensor]:
    """What is read, `[N, h, d]`, and the logarithm of the sum of each query's weights, `[N, h]` (float32)."""
    N, h, d = q_Nhd.shape
    out_Nhd, sums_Nh = torch.empty(N, h, d, dtype=q_Nhd.dtype), torch.empty(N, h)
    arrays = [part for x in (q_Nhd, k_Nhd, v_Nhd) for part in _rows(x)]
    results = _rows(out_Nhd)[0], sums_Nh.view(-1).numpy()
    in_parts(forward, _cuts(offsets, window), *arrays, offsets.numpy(), h, d, window or EVER, *_unseen(), *results)
    return out_Nhd, sums_Nh


def stream_attention_backward(
    g_Nhd: Tensor,
    heads: tuple[Tensor, Tensor, Tensor],
    out_Nhd: Tensor,
    sums_Nh: Tensor,
    offsets: Tensor,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values (`heads`)."""
    N, h, d = g_Nhd.shape
    dq_Nhd, dk_Nhd, dv_Nhd = (torch.empty(N, h, d, dtype=g_Nhd.dtype) for _ in range(3))
    arrays = [part for x in (g_Nhd, *heads) for part in _rows(x)]
    arrays += [_rows(out_Nhd)[0], sums_Nh.view(-1).numpy(), offsets.numpy()]
    results = [_rows(x)[0] for x in (dq_Nhd, dk_Nhd, dv_Nhd)]
    in_parts(backward, _cuts(offsets, window), *arrays, h, d, window or EVER, *_unseen(), *results)
    return dq_Nhd, dk_Nhd, dv_Nhd


def _rows(x_Nhd: Tensor) -> tuple[np.ndarray, int]:
    """The memory of x (bf16 as int16), and how far its tokens lie apart."""
    N, h, d = x_Nhd.shape
    row = x_Nhd.stride(0)
    flat = x_Nhd.detach().as_strided(((N - 1) * row + h * d,), (1,))
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy(), row


def _cuts(offsets: Tensor, window: int | None) -> list[int]:
    """Streams in parts of about equal work, one a thread."""
    lengths = offsets.diff().double()
    work = (lengths * (lengths.clamp_max(window or EVER) + 64)).cumsum(0)
    parts = max(1, min(torch.get_num_threads(), len(lengths)))
    wanted = work[-1] * torch.arange(1, parts, dtype=torch.float64) / parts
    return [0, *torch.searchsorted(work, wanted).tolist(), len(lengths)]


@cache
def _unseen() -> tuple[np.ndarray, np.ndarray]:
    """Minus infinity, of `[16, 16]`, row t: in lanes before t (queries before a key), and in lanes from t on (queries
    that a key has left the window of)."""
    row, lane = np.mgrid[:16, :16]
    both = (np.where(hidden, -np.inf, 0).astype(np.float32).ravel() for hidden in (lane < row, lane >= row))
    early, late = both
    return early, late
