"""A plain multi-layer perceptron."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from fullrank.layers.activation import Activation, make_activation
from fullrank.layers.linear_relu import linear_relu


class MLP(nn.Module):
    """`[Linear → BatchNorm? → f → Dropout] × len(hidden)`, then a Linear to `out_width` unless that is None. f is ReLU
    unless `activation` says otherwise.

    `[..., in_width] -> [..., out_width]` (`[B, in_width]` only with `batch_norm`); with no hidden layer and no
    `out_width` it is the identity. `self.width` is the width that comes out. Xavier-normal weights, zero biases; a
    Linear under BatchNorm has no bias, since the normalisation would take it away again. BatchNorm needs batches of
    more than one row in training: leave it off where rows of one batch are alike (one request's candidates).
    """

    def __init__(
        self,
        in_width: int,
        hidden: tuple[int, ...],
        out_width: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for before, after in itertools.pairwise((in_width, *hidden)):
            steps.append(nn.Linear(before, after, bias=not batch_norm))
            if batch_norm:
                steps.append(nn.BatchNorm1d(after))
            steps.append(make_activation(activation, after))
            if dropout:
                steps.append(nn.Dropout(dropout))
        self.width = hidden[-1] if hidden else in_width
        if out_width is not None:
            steps.append(nn.Linear(self.width, out_width))
            self.width = out_width
        self.steps = nn.Sequential(*steps)
        kinds = itertools.pairwise([*map(type, steps), None])
        self._relu_follows = [pair == (nn.Linear, nn.ReLU) for pair in kinds]
        for module in steps:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        steps = zip(self.steps, self._relu_follows, strict=True)
        for step, relu_follows in steps:
            if relu_follows and x.dim() == 2:
                assert isinstance(step, nn.Linear)
                x = linear_relu(x, step.weight, step.bias)
                next(steps)
            else:
                x = step(x)
        return x
