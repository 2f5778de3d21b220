"""A Linear with first weights as the rankers here have them."""

from __future__ import annotations

from torch import nn


def xavier_linear(in_width: int, out_width: int, bias: bool = True) -> nn.Linear:
    """`nn.Linear` with Xavier-normal weights and zero bias: what the rankers' papers name, or, where they name nothing,
    our choice."""
    linear = nn.Linear(in_width, out_width, bias=bias)
    nn.init.xavier_normal_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
