"""Numeric fields as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NumericEmbedding(nn.Module):
    """x_f = value_f * w_f + b_f for each numeric field f; a missing value (NaN) is a learned vector of its own.

    `forward(numbers_nF) -> x_nFD`, float32 after the transform's scaler. A missing value gives w_f and b_f no
    gradient. All three vectors start as N(0, 0.01²), like table rows, so that no kind of field is louder than another
    (our choice). Not for values of many orders of magnitude: x is linear in the value, so scale it first.
    """

    def __init__(self, num_fields: int, width: int) -> None:
        super().__init__()
        self.weight_FD = nn.Parameter(torch.randn(num_fields, width) * 0.01)
        self.bias_FD = nn.Parameter(torch.randn(num_fields, width) * 0.01)
        self.missing_FD = nn.Parameter(torch.randn(num_fields, width) * 0.01)

    def forward(self, numbers_nF: Tensor) -> Tensor:
        if numbers_nF.shape[-1] != self.weight_FD.shape[0]:
            got = tuple(numbers_nF.shape)
            raise ValueError(f"Expected numbers of {self.weight_FD.shape[0]} fields, got shape {got}.")
        missing_nF1 = numbers_nF.isnan().unsqueeze(-1)
        # NaN must not reach the product: where() alone would still send NaN into the gradient of the weight.
        values_nF1 = torch.where(missing_nF1, 0, numbers_nF.unsqueeze(-1))
        return torch.where(missing_nF1, self.missing_FD, values_nF1 * self.weight_FD + self.bias_FD)
