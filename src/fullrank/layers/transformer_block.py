"""One pre-LN Transformer block. Legend: B rows · T tokens · D width."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fullrank.layers.norm import ResidualNorm
from fullrank.layers.self_attention import SelfAttention


class TransformerBlock(nn.Module):
    """`S = X + drop(attention(LN(X)))`, `X' = S + drop(W_2 f(W_1 LN(S) + b_1) + b_2)`; `[B, T, D] -> [B, T, D]`.

    `hidden`: width of the feed-forward network, whose f is ReLU or GELU; `project_out`: whether attention ends in W_O.
    Parameters: `3 D² (4 D² with W_O) + 2 D hidden + hidden + D + 4 D`.

    References: Vaswani et al. 2017, arXiv:1706.03762 (the block); Xiong et al. 2020, arXiv:2002.04745 (the norm inside
    the branch, so that a deep stack trains without warm-up).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        activation: Literal["relu", "gelu"],
        project_out: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attend_norm = ResidualNorm(width, "pre")
        self.feed_norm = ResidualNorm(width, "pre")
        self.attention = SelfAttention(width, heads, project_out)
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for linear in (first, second):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.feed = nn.Sequential(first, nn.ReLU() if activation == "relu" else nn.GELU(), second)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None, causal: bool = False) -> Tensor:
        s_BTD = self.attend_norm(x_BTD, lambda y_BTD: self.dropout(self.attention(y_BTD, mask_BT, causal)))
        return self.feed_norm(s_BTD, lambda y_BTD: self.dropout(self.feed(y_BTD)))
