"""Explicit feature crosses. Legend: B rows · D width of the flat input."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossLayer(nn.Module):
    """One DCN-v2 cross layer: `x_{l+1} = x_0 ⊙ (W x_l + b) + x_l`, `[B, D] -> [B, D]`.

    L layers hold every product of up to L + 1 coordinates that W selects. Parameters: `D² + D`: with hundreds of
    fields, W is where the memory goes. Xavier-normal W, zero b.

    Reference: Wang et al., "DCN V2", 2021, arXiv:2008.13535, eq. 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x0_BD: Tensor, x_BD: Tensor) -> Tensor:
        return torch.addcmul(x_BD, x0_BD, self.linear(x_BD))
