"""Where the normalisation of a residual block sits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fullrank.kernels.rms_norm import rms_norm

NormPlacement = Literal["post", "pre"]


class ResidualNorm(nn.Module):
    """A skip connection with LayerNorm (eps 1e-5) around a branch f, on the last axis of width D.

    `post`: `LN(f(x) + x)`, as the Transformer was first written; output has unit scale however deep the stack.
    `pre`: `f(LN(x)) + x`; easier to train when deep, but the scale of x grows with every block.
    Parameters: 2 · D, shared by all tokens. The branch is given at the call, so it stays a module of its owner.
    """

    def __init__(self, width: int, placement: NormPlacement) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.placement = placement

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.placement == "post":
            return self.norm(branch(x) + x)
        return branch(self.norm(x)) + x


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x²) + eps) * g` over the last axis of width D, a gain of D numbers (with `tokens` of each token,
    `[T, D]`); no mean is taken off and there is no bias. Under autocast it reads bfloat16 and computes in float32.

    Reference: Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, width: int, eps: float, tokens: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width) if tokens is None else torch.ones(tokens, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
