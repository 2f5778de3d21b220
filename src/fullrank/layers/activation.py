"""Activations with parameters, and the choice among them. Legend: n owners · D width."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.kernels.target_attention import Gate

Activation = Literal["relu", "prelu", "dice"]
MOMENTUM = 0.1  # of the running mean and variance


class Dice(nn.Module):
    """`p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8))`, `f(s) = p(s) s + (1 - p(s)) alpha s`; `[n, D] -> [n, D]`.

    A PReLU whose corner follows the data: E and Var are those of each column of the batch in training, and running
    ones (momentum 0.1) in evaluation. alpha starts at 0, one a column: D parameters. A training batch of fewer than
    two owners has no variance and takes the running ones (our choice). What a row gives in training depends on the
    rows around it: not for batches whose rows are alike (one request's candidates).

    Reference: Zhou et al., "Deep Interest Network", 2018, arXiv:1706.06978, eq. 3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha_D = nn.Parameter(torch.zeros(width))

    def forward(self, x_nD: Tensor) -> Tensor:
        x_nD = x_nD.to(self.alpha_D.dtype)  # bfloat16 under autocast; its mean and variance should not be
        training = self.training and x_nD.shape[0] > 1
        mean_D, var_D = self.norm.running_mean, self.norm.running_var
        standard_nD = F.batch_norm(x_nD, mean_D, var_D, training=training, momentum=MOMENTUM, eps=self.norm.eps)
        return x_nD * torch.lerp(self.alpha_D, torch.ones_like(self.alpha_D), standard_nD.sigmoid())


def make_activation(kind: Activation, width: int) -> nn.Module:
    """ReLU, PReLU (a slope a column, from 0.25) or `Dice` for `[n, width]`."""
    if kind == "relu":
        return nn.ReLU()
    return nn.PReLU(width) if kind == "prelu" else Dice(width)


def gate_of(activation: nn.Module, width: int) -> Gate:
    """The same activation for a kernel that is given at least two owners."""
    if isinstance(activation, Dice):
        norm = activation.norm
        return Gate(
            alpha_A=activation.alpha_D,
            mean_A=norm.running_mean,
            var_A=norm.running_var,
            eps=norm.eps,
            momentum=MOMENTUM,
            of_pairs=activation.training,
        )
    if isinstance(activation, nn.PReLU):
        return Gate(alpha_A=activation.weight)
    return Gate(alpha_A=torch.zeros(width))
