"""The cross-entropy of a binary task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fullrank.training.objectives.base import LabelColumn, mean_of_known


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """The cross-entropy averaged over the weight of the rows whose label is known.

    ``L = Σ_i w_i m_i ℓ(z_i, y_i) / Σ_i w_i m_i`` with ``ℓ(z, y) = log(1 + e^z) - y z``, m_i = 1 where the label of row
    i is known, and w_i the row's weight (times 1/s_i with `undo_sample_rate`). Without a known row in the batch it is
    exactly 0, with a gradient of exactly 0.

    Args:
        undo_sample_rate: count a row of which the share s was kept 1/s times, so that the model learns the rates of
            the traffic before sampling (and `pcoc` can be 1). Costs variance: rare large weights. Off, the model
            learns the rates of the sampled log.

    Being a mean over each batch, a row counts for more where few labels of its batch are known. Not for regression
    or multiclass tasks.
    """

    whole_requests: ClassVar[bool] = False

    undo_sample_rate: bool = False

    def __call__(self, logit_B: Tensor, column: LabelColumn) -> Tensor:
        weight_B = column.weight_B / column.sample_rate_B if self.undo_sample_rate else column.weight_B
        # where, not a product: a nan or inf logit of an unknown row must not reach the sum or its gradient as 0 * nan
        known_logit_B = torch.where(column.known_B, logit_B, 0.0)
        loss_B = binary_cross_entropy_with_logits(known_logit_B, column.value_B, reduction="none")
        return mean_of_known(loss_B, column.known_B, weight_B)
