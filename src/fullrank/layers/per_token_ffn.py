"""A feed-forward network per token: token t owns its weights, all tokens are computed in one batched product.

Legend: B rows · T tokens · D token width · H hidden width (k · D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def xavier_normal_slices_(weight: Tensor) -> Tensor:
    """Fill `[..., fan_in, fan_out]` with N(0, 2 / (fan_in + fan_out)), every 2-D slice a matrix of its own.

    The library's initialisers take a 3-D tensor for a convolution kernel and come out `sqrt(T)`-fold too small, so
    a deep stack of per-token layers would start near zero.
    """
    fan_in, fan_out = weight.shape[-2:]
    with torch.no_grad():
        return weight.normal_(0.0, math.sqrt(2.0 / (fan_in + fan_out)))


class PerTokenFFN(nn.Module):
    """`y_t = W2_t · GELU(W1_t · x_t + b1_t) + b2_t`, weights of its own for every token t; `[T, B, D] -> [T, B, D]`.

    The layout is token-major so that each product is one `[T, B, ·]` batched matrix product; a `[B, T, D]` tensor is
    passed as `x.transpose(0, 1)` without a copy. GELU is the exact (erf) form. Parameters:
    `T * (2 * k * D² + k * D + D)`. Initialised per slice (Xavier normal), biases 0; `dropout` acts on the hidden
    units (the paper names none: our choice, off by default). Not for tokens that are exchangeable, such as the events
    of a history: there one shared network is meant.

    Reference: RankMixer, arXiv:2507.15551, "Per-token FFN".
    """

    def __init__(self, tokens: int, width: int, expansion: int, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = expansion * width
        self.weight1_TDH = nn.Parameter(torch.empty(tokens, width, hidden))
        self.bias1_T1H = nn.Parameter(torch.zeros(tokens, 1, hidden))
        self.weight2_THD = nn.Parameter(torch.empty(tokens, hidden, width))
        self.bias2_T1D = nn.Parameter(torch.zeros(tokens, 1, width))
        self.dropout = nn.Dropout(dropout)
        xavier_normal_slices_(self.weight1_TDH)
        xavier_normal_slices_(self.weight2_THD)

    def forward(self, x_TBD: Tensor) -> Tensor:
        hidden_TBH = self.dropout(F.gelu(torch.baddbmm(self.bias1_T1H, x_TBD, self.weight1_TDH)))
        return torch.baddbmm(self.bias2_T1D, hidden_TBH, self.weight2_THD)
