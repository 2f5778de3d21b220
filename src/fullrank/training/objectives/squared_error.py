"""The squared error of a regression task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fullrank.training.objectives.base import LabelColumn, mean_of_known


@dataclass(frozen=True, kw_only=True)
class SquaredError:
    """``L = Σ_i w_i m_i (z_i - y_i)² / Σ_i w_i m_i``: the output z is the predicted number itself, m_i = 1 where the
    label of row i is known, w_i the row's weight (times 1/s_i with `undo_sample_rate`). Exactly 0, and its gradient
    too, without a known row in the batch.

    Args:
        undo_sample_rate: as in `BinaryCrossEntropy`.

    In the label's unit squared: beside other tasks a label in hundreds drowns them, so scale it or give it a small
    weight. Not for labels with rare huge values (prices, watch times): their mean hangs on a few rows; train on a
    logarithm of them.
    """

    whole_requests: ClassVar[bool] = False

    undo_sample_rate: bool = False

    def __call__(self, logit_B: Tensor, column: LabelColumn) -> Tensor:
        weight_B = column.weight_B / column.sample_rate_B if self.undo_sample_rate else column.weight_B
        error_B = torch.where(column.known_B, logit_B, 0.0) - column.value_B
        return mean_of_known(error_B.square(), column.known_B, weight_B)
