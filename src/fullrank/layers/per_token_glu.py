"""A gated feed-forward network per token. Legend: B rows · T tokens · D token width · H hidden width."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.per_token_linear import PerTokenLinear

GateActivation = Literal["gelu", "relu", "silu"]
_FUNCTIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class PerTokenGLU(nn.Module):
    """`Z_t = (f(M_t W1_t) ⊙ (M_t W2_t)) W3_t + M_t Wr_t`, weights of its own for every token t;
    `[B, T, D] -> [B, T, D]`, T (3 D H + D²) parameters.

    f is GELU (exact), ReLU or SiLU (with which it is called SwiGLU). `skip` off leaves `Wr` out. `gated` off leaves
    `W2` out (an FFN with a linear skip: the paper's ablation names the activation alone, that the skip stays is our
    choice). `bias` and `inner_skip`, which adds `M_t Ws_t` to f inside the product (T D H more), are the authors'
    repository's. The product of two linear maps is what keeps directions that
    an activation folds (Theorem 3.2); its output grows with the square of the input, so norm what comes in.

    Reference: RankElastor, arXiv:2605.23191.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        hidden: int,
        *,
        activation: GateActivation = "gelu",
        gated: bool = True,
        bias: bool = False,
        inner_skip: bool = False,
        skip: bool = True,
    ) -> None:
        super().__init__()
        if inner_skip and not gated:
            raise ValueError("An inner skip belongs into a gate: expected gated=True with inner_skip=True.")
        self.activation: GateActivation = activation
        self.lift = PerTokenLinear(tokens, width, hidden, bias)
        self.gate = PerTokenLinear(tokens, width, hidden, bias) if gated else None
        self.inner_skip = PerTokenLinear(tokens, width, hidden, bias) if inner_skip else None
        self.reduce = PerTokenLinear(tokens, hidden, width, bias)
        self.skip = PerTokenLinear(tokens, width, width, bias) if skip else None

    def forward(self, m_BTD: Tensor) -> Tensor:
        hidden_BTH = _FUNCTIONS[self.activation](self.lift(m_BTD))
        if self.inner_skip is not None:
            hidden_BTH = hidden_BTH + self.inner_skip(m_BTD)
        if self.gate is not None:
            hidden_BTH = hidden_BTH * self.gate(m_BTD)
        out_BTD = self.reduce(hidden_BTH)
        return out_BTD if self.skip is None else out_BTD + self.skip(m_BTD)
