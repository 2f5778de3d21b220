"""A Linear of its own for every token. Legend: B rows · T tokens · d width read · D width made."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PerTokenLinear(nn.Module):
    """y_t = x_t W_t + b_t: every token owns its weights; `[B, T, d] -> [B, T, D]`, T(dD + D) parameters, T d D without
    `bias`.

    Xavier-uniform for each `[d, D]` slice on its own (a library initialiser takes the 3-D weight for a convolution
    kernel and draws it far too small) and zero biases: our choice.
    """

    def __init__(self, num_tokens: int, in_width: int, out_width: int, bias: bool = True) -> None:
        super().__init__()
        bound = math.sqrt(6 / (in_width + out_width))
        self.weight_TdD = nn.Parameter(torch.empty(num_tokens, in_width, out_width).uniform_(-bound, bound))
        self.bias_TD = nn.Parameter(torch.zeros(num_tokens, out_width)) if bias else None

    def forward(self, x_BTd: Tensor) -> Tensor:
        x_TBd = x_BTd.transpose(0, 1)
        if self.bias_TD is None:
            return torch.bmm(x_TBd, self.weight_TdD).transpose(0, 1)
        return torch.baddbmm(self.bias_TD.unsqueeze(1), x_TBd, self.weight_TdD).transpose(0, 1)
