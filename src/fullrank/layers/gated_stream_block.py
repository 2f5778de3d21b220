"""A layer of TokenFormer: attention within streams, its output gated by what came in, and a gated network.

Legend: N tokens · B targets · D width · h heads · m expansion.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.linear import xavier_linear
from fullrank.layers.norm import RMSNorm
from fullrank.layers.rope import rotate

StreamForm = Literal["paper", "unirank"]
EPS = 1e-6


class GatedStreamBlock(nn.Module):
    """With A the attention of `N = norm(X)`:

        I~ = sigmoid(N W_g) ⊙ A        (NLIR: the attention's output is modulated, one-sided)
        I  = X + I~
        X' = I + (SiLU(norm(I) W_1) ⊙ (norm(I) W_2)) W_3

    `[N, D] -> [N, D]`; attention is the caller's (`heads(...)` gives queries, keys and values, `merge` takes what was
    read), so that one block serves streams of unequal length, targets, and a plain `[S, D]`. Without biases, RMSNorm:
    `5 D² + 3 m D² + 2 D` parameters. `gated` off: `I = X + A`, a plain Transformer, 4 D² + ….

    Fixed by the paper: pre-norm, the gate, RoPE. Where transcriptions differ we follow UniRank and all who rebuilt it:
    the gate reads norm(X), and the network reads norm(I). `form` "unirank" is that implementation: LayerNorm, no W_o,
    no RoPE, GELU instead of SiLU, biases in the network.

    References: TokenFormer, arXiv:2604.13737, equations 15 to 19; UniRank, arXiv:2607.19987.
    """

    def __init__(
        self, width: int, heads: int, expansion: int, *, form: StreamForm = "paper", gated: bool = True
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"Expected a width that is a multiple of twice the heads, got {width} and {heads}.")
        paper = form == "paper"
        self.num_heads, self.form = heads, form
        self.norm_in = RMSNorm(width, EPS) if paper else nn.LayerNorm(width)
        self.norm_feed = RMSNorm(width, EPS) if paper else nn.LayerNorm(width)
        self.query, self.key, self.value = (xavier_linear(width, width, bias=False) for _ in range(3))
        self.out = xavier_linear(width, width, bias=False) if paper else None
        self.gate = xavier_linear(width, width, bias=False) if gated else None
        self.lift, self.side = (xavier_linear(width, expansion * width, bias=not paper) for _ in range(2))
        self.reduce = xavier_linear(expansion * width, width, bias=not paper)

    def heads(self, x_ND: Tensor, positions_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[..., N, h, d]` each."""
        normed = self.norm_in(x_ND)
        q, k, v = (part(normed).unflatten(-1, (self.num_heads, -1)) for part in (self.query, self.key, self.value))
        return (q, k, v) if self.form == "unirank" else (rotate(q, positions_N), rotate(k, positions_N), v)

    def merge(self, x_ND: Tensor, read_Nhd: Tensor) -> Tensor:
        """X' of X and what its heads read."""
        read_ND = read_Nhd.flatten(-2)
        read_ND = read_ND if self.out is None else self.out(read_ND)
        if self.gate is not None:
            read_ND = torch.sigmoid(self.gate(self.norm_in(x_ND))) * read_ND
        i_ND = x_ND + read_ND
        normed = self.norm_feed(i_ND)
        lifted = F.silu(self.lift(normed)) if self.form == "paper" else F.gelu(self.lift(normed))
        return i_ND + self.reduce(lifted * self.side(normed))

    def forward(self, x_BSD: Tensor, mask_SS: Tensor, positions_S: Tensor) -> Tensor:
        """Streams of one length with a mask (query, key): what the ragged ways are checked against."""
        q, k, v = (part.transpose(-2, -3) for part in self.heads(x_BSD, positions_S))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_SS)
        return self.merge(x_BSD, read.transpose(-2, -3))
