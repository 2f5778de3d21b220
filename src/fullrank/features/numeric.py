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
        # One small product a field, [value, 1 or 0, 0 or 1] @ [w_f; b_f; missing_f]: a quarter of the time of two
        # where() over [n, F, D] and their backwards.
        numbers_Fn = numbers_nF.T
        missing_Fn = numbers_Fn.isnan()
        is_missing_Fn = missing_Fn.to(numbers_nF.dtype)
        terms_Fn3 = torch.stack([numbers_Fn.masked_fill(missing_Fn, 0), 1 - is_missing_Fn, is_missing_Fn], -1)
        vectors_F3D = torch.stack([self.weight_FD, self.bias_FD, self.missing_FD], 1)
        return torch.bmm(terms_Fn3, vectors_F3D).transpose(0, 1)
