"""A Transformer layer in two halves that attend to one another: weights shared by all tokens, or a token's own.

Legend: D width · h heads · d width of a head. `...` stands for N tokens of streams, or for B candidates of T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.norm import RMSNorm

EPS = 1e-6
MakeLinear = Callable[[int, int, bool], nn.Module]  # of the width read, the width made, and whether there is a bias


class KeysAndValues(nn.Module):
    """`K = N W_k`, `V = N W_v` of `N = RMSNorm(X)`: all that is needed of tokens that are only read."""

    def __init__(self, width: int, heads: int, linear: MakeLinear) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Expected a width that is a multiple of the heads, got {width} and {heads}.")
        self.num_heads = heads
        self.norm_in = RMSNorm(width, EPS)
        self.key, self.value = (linear(width, width, False) for _ in range(2))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, `[..., D] -> [..., h, d]` each."""
        normed = self.norm_in(x)
        return self._cut(self.key(normed)), self._cut(self.value(normed))

    def _cut(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


class MixedPart(KeysAndValues):
    """With A the attention of `RMSNorm(X)`: `S = X + A W_o`, `X' = S + GELU(RMSNorm(S) W_1 + b_1) W_2 + b_2`.

    `linear` makes each W: an `nn.Linear` for tokens that share their weights, a `PerTokenLinear` for tokens that own
    them. What attends to what is the caller's: `queries`, `heads`, then `merge` of what was read.

    Reference: OneTrans, 2025, arXiv:2510.26104 (mixed parameterization; GELU and biases are our choices).
    """

    def __init__(self, width: int, heads: int, expansion: int, linear: MakeLinear) -> None:
        super().__init__(width, heads, linear)
        self.query, self.out = (linear(width, width, False) for _ in range(2))
        self.norm_feed = RMSNorm(width, EPS)
        self.lift, self.reduce = linear(width, expansion * width, True), linear(expansion * width, width, True)

    def queries(self, x: Tensor) -> Tensor:
        """Of some tokens alone."""
        return self._cut(self.query(self.norm_in(x)))

    def all_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the same tokens, normed once."""
        normed = self.norm_in(x)
        q, k, v = (self._cut(linear(normed)) for linear in (self.query, self.key, self.value))
        return q, k, v

    def merge(self, x: Tensor, read: Tensor) -> Tensor:
        """X' of X and what its heads read, `[..., h, d]`."""
        s = x + self.out(read.flatten(-2))
        return s + self.reduce(F.gelu(self.lift(self.norm_feed(s))))
