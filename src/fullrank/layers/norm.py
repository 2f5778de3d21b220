"""Where the normalisation of a residual block sits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

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
