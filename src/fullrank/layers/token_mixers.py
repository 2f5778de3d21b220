"""Learned ways for the tokens of a row to reach one another, beside the parameter-free one of `mixing.py`.

Legend: B rows · T tokens · D token width · W = T · D, all numbers of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.layers.linear import xavier_linear

MOST = 2048  # T · D of full mixing: four million weights a layer


class FullMixing(nn.Module):
    """`vec(Y) = W vec(X) + b`: every number of every token into every other; `[B, T, D] -> [B, T, D]`.

    (T D)² parameters (+ T D with `bias`), Xavier-normal, zero biases. RankMixer's permutation is one such W, and so is
    any map with a block structure: what a block costs in expressiveness is the paper's Theorem 3.1.

    Raises: ValueError for T · D above 2048 (16 tokens of 768 would be 151 M weights a layer): use `KroneckerMixing`.

    Reference: RankElastor, arXiv:2605.23191, "parameterised full mixing".
    """

    def __init__(self, tokens: int, width: int, bias: bool) -> None:
        super().__init__()
        if tokens * width > MOST:
            raise ValueError(
                f"Full mixing has (tokens x width)² weights a layer: expected tokens x width of at most {MOST}, got "
                f"{tokens} x {width} = {tokens * width}. Use the kronecker mixer, or fewer or narrower tokens."
            )
        self.linear = xavier_linear(tokens * width, tokens * width, bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.linear(x_BTD.flatten(1)).view(x_BTD.shape)


class KroneckerMixing(nn.Module):
    """`vec(Y) = (G ⊗ Wᵀ) vec(X)`: tokens as T² parts of width d = D / T, part (t, h) being head h of token t, and
    `Y_p = Σ_q G_pq X_q W`; `[B, T, D] -> [B, T, D]`, T⁴ + d² parameters, `2 T³ D + 2 T d D` FLOPs a row.

    It begins as RankMixer's permutation, bit for bit: G the commutation matrix (part (t, h) from part (h, t)), W = 1.
    The T D x T D matrix is never made. D must be a multiple of T.

    Reference: UniMixer, arXiv:2604.00590, which shows that the permutation is such a product; its Sinkhorn
    normalisation, symmetry and temperature are left out, and that it begins there is our choice.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        if width % tokens:
            raise ValueError(f"Expected a token width that is a multiple of the {tokens} tokens, got {width}.")
        part = width // tokens
        places = torch.arange(tokens * tokens).view(tokens, tokens).T.flatten()
        self.parts_PP = nn.Parameter(torch.eye(tokens * tokens)[places])
        self.inside_dd = nn.Parameter(torch.eye(part))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BPd = x_BTD.reshape(x_BTD.shape[0], len(self.parts_PP), -1)
        return (self.parts_PP @ (x_BPd @ self.inside_dd)).view(x_BTD.shape)


class SegmentMixing(nn.Module):
    """vec(X) cut in equal segments, all multiplied by one matrix; `[B, T, D] -> [B, T, D]`, (T D / segments)²
    parameters.

    What RankElastor's repository calls fast mixing. Numbers of different segments never meet: with as many segments as
    tokens it mixes nothing across tokens. For repeating its configurations; else `KroneckerMixing`.
    """

    def __init__(self, tokens: int, width: int, segments: int) -> None:
        super().__init__()
        if segments < 1 or tokens * width % segments:
            raise ValueError(f"Expected segments that divide the {tokens * width} numbers of a row, got {segments}.")
        self.segments = segments
        self.linear = xavier_linear(tokens * width // segments, tokens * width // segments, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.linear(x_BTD.reshape(len(x_BTD), self.segments, -1)).view(x_BTD.shape)
