"""Attention without softmax: SiLU of every score, divided by a constant, with a learned number for each distance.

Legend: N tokens of all streams · S tokens of the longest stream of a group · h heads · d width of a head · X keys of
a query.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.precision import at_least_float32
from fullrank.layers.stream_attention import Streams, by_groups


class SiLUWeights(nn.Module):
    """`SiLU(q k + b[min(distance, n - 1)]) / n`, 0 where there is no key: a weight needs no other key's, and how many
    events there were is not divided away. n = `positions`, a constant: it may not change between training, serving and
    kept keys. No 1 / sqrt(d), one b for all heads.

    The mask comes after SiLU: minus infinity before it would be -inf · 0, no number. The division by n is that of the
    authors' code. That far distances share a number, and that b starts at 0, are our choices.

    Reference: Zhai et al., "Actions Speak Louder than Words" (HSTU), 2024, arXiv:2402.17152, equation 2.
    """

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.bias_n = nn.Parameter(torch.zeros(positions))

    def forward(self, scores_bThX: Tensor, behind_bTX: Tensor) -> Tensor:
        """Of products `q k`, and of how many places before the query each key stands (-1: there is none)."""
        bias_bTX = self.bias_n[behind_bTX.clamp(0, self.positions - 1)]
        weight = F.silu(scores_bThX + bias_bTX.unsqueeze(-2)) / self.positions
        return weight.masked_fill((behind_bTX < 0).unsqueeze(-2), 0.0)


def silu_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams, weigh: SiLUWeights) -> Tensor:
    """Every token sees itself and those before it in its stream; `[N, h, d]`. Cost `2 S² d` a head and stream."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        place_S = torch.arange(q.shape[2], device=q.device)
        behind_1SS = (place_S[:, None] - place_S).clamp_min(-1)[None]  # a key behind the query is not there
        scores_nShX = (q @ k.transpose(2, 3)).transpose(1, 2)
        return weigh(at_least_float32(scores_nShX), behind_1SS).transpose(1, 2).to(v.dtype) @ v

    return by_groups(q_Nhd, k_Nhd, v_Nhd, streams, attend)
