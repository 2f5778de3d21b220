"""Scaled dot-product attention of tokens to each other. Legend: B rows · T tokens · D width · H heads."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """`softmax(Q K^T / sqrt(D / H)) V` a head, heads concatenated, then W_O if `project_out`; `[B, T, D] -> [B, T, D]`.

    Q, K, V and O are Linears without bias, Xavier-normal: 3 D² parameters, 4 D² with W_O. `mask_BT` (bool, True: the
    token is there) hides tokens as keys; `causal` lets token t see tokens up to t. Use one of the two: padding that
    stands behind all tokens is never seen by them under `causal`. A row needs one token that is there. Cost a row:
    2 T² D products, and T² H weights where the library has no fused form.

    Reference: Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, section 3.2.
    """

    def __init__(self, width: int, heads: int, project_out: bool) -> None:
        super().__init__()
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"Expected a width that is a multiple of the number of heads, got {width} and {heads}.")
        self.heads = heads
        self.project = nn.Linear(width, 3 * width, bias=False)
        for weight_DD in self.project.weight.chunk(3):
            nn.init.xavier_normal_(weight_DD)
        self.out = nn.Linear(width, width, bias=False) if project_out else None
        if self.out is not None:
            nn.init.xavier_normal_(self.out.weight)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None, causal: bool = False) -> Tensor:
        split_BT3Hd = self.project(x_BTD).unflatten(2, (3, self.heads, -1))
        q_BHTd, k_BHTd, v_BHTd = (part.transpose(1, 2) for part in split_BT3Hd.unbind(2))
        mask_B11T = None if mask_BT is None else mask_BT[:, None, None, :]
        y_BHTd = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask_B11T, is_causal=causal)
        y_BTD = y_BHTd.transpose(1, 2).flatten(2)
        return y_BTD if self.out is None else self.out(y_BTD)
