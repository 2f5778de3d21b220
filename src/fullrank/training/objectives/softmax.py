"""Listwise: which of a request's rows is the positive one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fullrank.training.objectives.base import LabelColumn
from fullrank.training.objectives.request_sides import compared_rows


@dataclass(frozen=True, kw_only=True)
class RequestSoftmax:
    """The cross-entropy of choosing the positive rows out of a request's known rows.

    ``ℓ_r = -Σ_i t_i log(e^{z_i} / Σ_j w_j e^{z_j})`` over the known rows i, j of request r, with the targets
    ``t_i = w_i y_i / Σ_j w_j y_j``; the loss is the mean of ℓ_r over the requests that have at least one known
    positive and one known negative row. Others teach no choice and are skipped; if all are, loss and gradient are
    exactly 0. It is the top-one cross-entropy of ListNet (Cao et al. 2007) with the labels, normalised, as the target
    distribution.

    Our choice: a row of weight w is w copies of it (so weight 0 is no row), every request counts once, and
    `sample_rate` is not undone.

    Logits are free up to a constant a request, so log-loss, PCOC and bids mean nothing until they are calibrated; use
    `BinaryCrossEntropy` where probabilities are wanted. Needs whole requests in a batch. Not for logs of one row a
    request: all would be skipped.
    """

    whole_requests: ClassVar[bool] = True

    def __call__(self, logit_B: Tensor, column: LabelColumn) -> Tensor:
        row_N, positive_N, request_N, num_requests = compared_rows(column)
        if not num_requests:
            return logit_B[:0].sum()  # 0 with a gradient of 0, whatever the logits are
        z_N, weight_N = logit_B[row_N], column.weight_B[row_N]

        def total(values_N: Tensor) -> Tensor:
            return values_N.new_zeros(num_requests).index_add(0, request_N, values_N)

        top_R = z_N.detach().new_full((num_requests,), -torch.inf)
        top_R = top_R.scatter_reduce(0, request_N, z_N.detach(), "amax")
        shifted_N = z_N - top_R[request_N]  # at most 0: exp cannot overflow
        target_N = torch.where(positive_N, weight_N, 0.0)
        target_N = target_N / total(target_N)[request_N]
        loss_R = total(weight_N * shifted_N.exp()).log() - total(target_N * shifted_N)
        return loss_R.mean()
