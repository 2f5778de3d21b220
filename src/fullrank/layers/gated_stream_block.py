"""A layer of TokenFormer: attention within streams, its output gated by what came in, and a gated network.

Legend: N tokens · B targets · D width · h heads · m expansion.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.kernels.rms_norm import gated_rms_norm
from fullrank.kernels.swiglu import swiglu
from fullrank.layers.linear import xavier_linear
from fullrank.layers.norm import RMSNorm
from fullrank.layers.rope import Rotation

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

    def heads(self, x_ND: Tensor, turned: Rotation) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys and values, `[..., N, h, d]` each, and the gate before its sigmoid."""
        normed_ND = self.norm_in(x_ND)
        weights = torch.cat([self.query.weight, self.key.weight, self.value.weight])
        made_NW = F.linear(normed_ND, weights)  # one product instead of three narrow ones
        made_NW = turned(made_NW) if self.form == "paper" else made_NW
        gate_ND = None if self.gate is None else self.gate(normed_ND)
        q, k, v = made_NW.unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        return q, k, v, gate_ND

    def merge(self, x_ND: Tensor, read_Nhd: Tensor, gate_ND: Tensor | None) -> Tensor:
        """X' of X and what its heads read."""
        read_ND = read_Nhd.flatten(-2)
        read_ND = read_ND if self.out is None else self.out(read_ND)
        if gate_ND is not None and isinstance(self.norm_feed, RMSNorm):
            i_ND, normed_ND = gated_rms_norm(x_ND, gate_ND, read_ND, self.norm_feed.weight, EPS)
        else:
            i_ND = x_ND + (read_ND if gate_ND is None else torch.sigmoid(gate_ND) * read_ND)
            normed_ND = self.norm_feed(i_ND)
        both = [self.lift, self.side]
        bias = None if self.lift.bias is None else torch.cat([linear.bias for linear in both])
        made_NW = F.linear(normed_ND, torch.cat([x.weight for x in both]), bias)
        if self.form == "paper":
            return i_ND + self.reduce(swiglu(made_NW))
        lifted, side = made_NW.chunk(2, dim=-1)
        return i_ND + self.reduce(F.gelu(lifted) * side)

    def rotation(self, positions_N: Tensor, like: Tensor) -> Rotation:
        """What turns the heads of this block, and of all of its sizes."""
        return Rotation.of(positions_N, self.query.out_features, self.num_heads, like.dtype)

    def forward(self, x_BSD: Tensor, mask_SS: Tensor, positions_S: Tensor) -> Tensor:
        """Streams of one length with a mask (query, key): what the ragged ways are checked against."""
        *heads, gate = self.heads(x_BSD, self.rotation(positions_S, x_BSD))
        q, k, v = (part.transpose(-2, -3) for part in heads)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_SS)
        return self.merge(x_BSD, read.transpose(-2, -3), gate)
