"""A layer of HSTU. Legend: N tokens · D width · h heads · d width of a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.linear import xavier_linear
from fullrank.layers.silu_attention import SiLUWeights

EPS = 1e-6


class HSTUBlock(nn.Module):
    """With `[U, V, Q, K] = SiLU(LN(X) W)` and A = V read with `SiLUWeights` of Q and K:

        X' = X + (LN(A) ⊙ U) W_o + b_o

    `[N, D] -> [N, D]`; both LayerNorms have no parameters. The product with U is what lets features meet one another,
    in the place of a feed-forward network: `5 D² + D` parameters (h d = D), and n numbers of the weights' bias.
    Attention is the caller's, as in `GatedStreamBlock`. W ~ N(0, .02) as in the authors' code.

    Left out: their dropout before W_o, and the bias of time differences; here an event's age is one of its fields. One
    head width for Q, K, U and V and Xavier-normal W_o are our choices.

    Reference: Zhai et al. (HSTU), 2024, arXiv:2402.17152, section 3.2.
    """

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width that is a multiple of the heads, got {width} and {heads}.")
        self.num_heads = heads
        self.mixed = nn.Linear(width, 4 * width, bias=False)
        nn.init.normal_(self.mixed.weight, std=0.02)
        self.weigh = SiLUWeights(positions)
        self.out = xavier_linear(width, width)

    def heads(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[..., N, h, d]` each, and U `[..., N, D]`."""
        made = F.silu(self.mixed(F.layer_norm(x_ND, x_ND.shape[-1:], eps=EPS)))
        gate, *others = made.chunk(4, dim=-1)
        v, q, k = (part.unflatten(-1, (self.num_heads, -1)) for part in others)
        return q, k, v, gate

    def merge(self, x_ND: Tensor, read_Nhd: Tensor, gate_ND: Tensor) -> Tensor:
        """X' of X and what its heads read."""
        read_ND = read_Nhd.flatten(-2)
        return x_ND + self.out(F.layer_norm(read_ND, read_ND.shape[-1:], eps=EPS) * gate_ND)

    def forward(self, x_SD: Tensor) -> Tensor:
        """One stream: what the ragged ways are checked against."""
        q, k, v, gate = self.heads(x_SD)
        place_S = torch.arange(len(x_SD), device=x_SD.device)
        behind_SS = (place_S[:, None] - place_S).clamp_min(-1)
        weight_ShX = self.weigh(torch.einsum("shd,xhd->shx", q, k), behind_SS)
        return self.merge(x_SD, torch.einsum("shx,xhd->shd", weight_ShX, v), gate)
