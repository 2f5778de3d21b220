"""Decoupled weight decay of a large table without touching every row every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DeferredDecay:
    """Multiplies every row by `1 - rate` at every step, but writes a row only when something else does.

    With `total` = the sum over steps of log1p(-rate) and `at_row` its value when the row was last written, the row as
    it should be is `w * exp(total - at_row)`. Reads add that factor (`EmbeddingTables.gather`, `pool`), so nobody ever
    sees a row that has not shrunk. Exact up to rounding, for rates that change from step to step. Price: 8 bytes a row.
    """

    def __init__(self, weight_RD: Tensor) -> None:
        self.total = 0.0
        self.at_row_R = torch.zeros(weight_RD.shape[0], dtype=torch.float64, device=weight_RD.device)

    def advance(self, rate: float) -> None:
        """One step that shrinks every row by the share `rate` (in [0, 1))."""
        self.total += math.log1p(-rate)

    def factor(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """What each stored row still has to be multiplied by; same shape as `rows`."""
        at_row = self.at_row_R.index_select(0, rows.reshape(-1)).view(rows.shape)
        return at_row.neg_().add_(self.total).exp_().to(dtype)

    def settle(self, rows_U: Tensor, dtype: torch.dtype) -> Tensor:
        """`factor` of unique rows, for the last time: the caller multiplies them by it now."""
        factor_U = self.factor(rows_U, dtype)
        self.at_row_R.index_fill_(0, rows_U, self.total)
        return factor_U

    @torch.no_grad()
    def flush(self, weight_RD: Tensor) -> None:
        """Bring every row up to date in place, and start counting anew."""
        if self.total:
            weight_RD.mul_(torch.exp(self.total - self.at_row_R).to(weight_RD.dtype).unsqueeze(-1))
            self.at_row_R.zero_()
            self.total = 0.0
